"use strict";
// Draws the cards of the products that the filters leave, a page at a time. Texts of products are only ever set as text.
(() => {
  const PER_PAGE = 48;
  const SIGNS = { right: "✓", near: "≈", wrong: "✗", unknown: "" };
  const NAMES = ["text", "answer", "category", "price", "order"];
  const byId = (id) => document.getElementById(id);
  const products = JSON.parse(byId("products").textContent);
  const controls = new Map(NAMES.map((name) => [name, byId(name)]).filter(([, control]) => control));
  const pagers = [...document.querySelectorAll(".pager")];
  let page = 1;

  const folded = (text) => text.toLowerCase().normalize("NFKD").replace(/\p{M}/gu, "");

  products.forEach((product, place) => {
    const texts = product.fields.flatMap((field) => [field.true, field.said.map(([text]) => text).join(" ")]);
    product.place = place;
    product.text = folded([product.id, product.name, product.answer, ...texts].join(" "));
  });

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  // What is looked for

  const ERRORS = {
    10: (error) => Math.abs(error) <= 0.1,
    20: (error) => Math.abs(error) > 0.1 && Math.abs(error) <= 0.2,
    50: (error) => Math.abs(error) > 0.2 && Math.abs(error) <= 0.5,
    more: (error) => Math.abs(error) > 0.5,
    high: (error) => error > 0.2,
    low: (error) => error < -0.2,
  };

  function hasError(product, wanted) {
    if (wanted === "none") return product.priceError === null;
    return product.priceError !== null && ERRORS[wanted](product.priceError);
  }

  function hasAnswer(product, wanted) {
    if (!wanted.startsWith("wrong:")) return product.mark === wanted;
    return product.fields.some((field) => `wrong:${field.name}` === wanted && field.mark === "wrong");
  }

  const value = (name) => (controls.has(name) ? controls.get(name).value : "");

  function found() {
    const words = folded(value("text")).split(/\s+/).filter(Boolean);
    const [answer, category, price] = ["answer", "category", "price"].map(value);
    const left = products.filter(
      (product) =>
        words.every((word) => product.text.includes(word)) &&
        (!answer || hasAnswer(product, answer)) &&
        (!category || product.category === category) &&
        (!price || hasError(product, price)),
    );
    // The products come worst first. Those without a spread go last.
    const by = {
      worst: (a, b) => a.place - b.place,
      best: (a, b) => b.place - a.place,
      row: (a, b) => a.number - b.number,
      unsure: (a, b) => (b.unsure ?? -1) - (a.unsure ?? -1) || a.place - b.place,
    };
    return left.sort(by[value("order")]);
  }

  // Cards

  function rowOf(field) {
    const said = element("td", {});
    if (SIGNS[field.mark]) said.append(element("span", { className: "sign", title: field.mark }, SIGNS[field.mark]));
    field.said.forEach(([text, isWrong], place) => {
      if (place) said.append(" ");
      said.append(isWrong ? element("mark", {}, text) : text);
    });
    if (field.off) said.append(" ", element("strong", {}, field.off));
    if (field.interval) said.append(" ", element("small", {}, field.interval));
    const name = element("th", { scope: "row" }, field.name);
    return element("tr", { className: field.mark }, name, element("td", {}, field.true), said);
  }

  function cardOf(product) {
    const picture = element("img", { src: product.image, width: 96, height: 96, alt: `Picture of ${product.name}` });
    const marks = product.badges.map(([mark, note]) =>
      element("span", { className: `badge ${mark}` }, `${SIGNS[mark]} ${note}`.trim()),
    );
    const head = element(
      "header", {}, picture,
      element("div", {}, element("h3", {}, product.id), element("p", { className: "badges" }, ...marks)),
    );
    const names = ["true", "predicted"].map((name) => element("th", { scope: "col" }, name));
    const table = element(
      "table", {},
      element("caption", { className: "sr" }, "Truth and prediction"),
      element("thead", {}, element("tr", {}, element("td", {}), ...names)),
      element("tbody", {}, ...product.fields.map(rowOf)),
    );
    const more = element(
      "details", {},
      element("summary", {}, "raw answer and more"),
      element("pre", {}, product.answer),
      ...product.details.map((line) => element("p", { className: "quiet" }, line)),
    );
    return element("article", { className: "card", id: `product-${product.number}`, tabIndex: -1 }, head, table, more);
  }

  // Pages

  const count = (number) => number.toLocaleString("en");

  function show() {
    const left = found();
    const pages = Math.max(1, Math.ceil(left.length / PER_PAGE));
    page = Math.min(Math.max(1, page), pages);
    const start = (page - 1) * PER_PAGE;
    const shown = left.slice(start, start + PER_PAGE);
    byId("cards").replaceChildren(...shown.map(cardOf));
    byId("count").textContent = left.length
      ? `${count(left.length)} of ${count(products.length)} products; ${count(start + 1)} to ${count(start + shown.length)} shown`
      : "No product fits these filters.";
    for (const pager of pagers) {
      pager.hidden = pages === 1;
      pager.querySelector(".previous").disabled = page === 1;
      pager.querySelector(".next").disabled = page === pages;
      pager.querySelector(".pages").textContent = `of ${count(pages)}`;
      const numbers = Array.from({ length: pages }, (_, place) => new Option(place + 1, place + 1));
      const choice = pager.querySelector(".page");
      choice.replaceChildren(...numbers);
      choice.value = page;
    }
  }

  function turnTo(number) {
    page = number;
    update();
    // The button that was pressed may be disabled now, and the cards begin above it.
    byId("found").focus();
    byId("found").scrollIntoView();
  }

  // The address holds the filters, so that a view can be kept, sent and linked to.

  function update() {
    show();
    const wanted = [...controls].filter(([, control]) => control.value !== firstValue(control));
    const state = new URLSearchParams(wanted.map(([name, control]) => [name, control.value]));
    if (page > 1) state.set("page", page);
    history.replaceState(null, "", `#${state}`);
  }

  const firstValue = (control) => (control.options ? control.options[0].value : "");

  function follow() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    for (const [name, control] of controls) {
      control.value = wanted.get(name) ?? firstValue(control);
      if (control.options && control.selectedIndex < 0) control.value = firstValue(control);
    }
    page = Number.parseInt(wanted.get("page"), 10) || 1;
    const number = Number.parseInt(wanted.get("product"), 10);
    if (!number) return show();
    controls.get("order").value = "row";
    page = 1 + Math.floor(found().findIndex((product) => product.number === number) / PER_PAGE);
    show();
    const card = byId(`product-${number}`);
    if (!card) {
      byId("count").textContent = `Product ${count(number)} is not on this page.`;
      return;
    }
    card.classList.add("wanted");
    card.focus();
    card.scrollIntoView({ block: "center" });
  }

  let waiting = 0;
  function changed() {
    clearTimeout(waiting);
    page = 1;
    update();
  }

  for (const [name, control] of controls) {
    control.addEventListener("input", () => {
      clearTimeout(waiting);
      // While somebody types, what is found is neither drawn nor read aloud at every letter.
      waiting = setTimeout(changed, name === "text" ? 200 : 0);
    });
  }
  byId("clear").addEventListener("click", () => {
    controls.forEach((control) => { control.value = firstValue(control); });
    changed();
    byId("text").focus();
  });
  for (const pager of pagers) {
    pager.querySelector(".previous").addEventListener("click", () => turnTo(page - 1));
    pager.querySelector(".next").addEventListener("click", () => turnTo(page + 1));
    // The focus stays: with arrow keys, a closed list changes at every press.
    pager.querySelector(".page").addEventListener("change", (event) => {
      page = Number(event.target.value);
      update();
    });
  }
  window.addEventListener("hashchange", follow);
  follow();
})();
