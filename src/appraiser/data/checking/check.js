"use strict";
// Decisions about products: the same product may stand in several issues, so they are kept by id.
(() => {
  const COLUMNS = ["id", "action", "title", "category", "price"];
  const decisions = new Map();
  const bar = document.querySelector(".save");
  const cards = [...document.querySelectorAll(".product")];

  function fieldsOf(action, card) {
    const wanted = { relabel: ["title", "category"], reprice: ["price"] }[action] || [];
    return wanted.filter((name) => card.dataset.fields.split(" ").includes(name));
  }

  function isComplete(decision) {
    return decision.action === "drop" || COLUMNS.slice(2).some((name) => decision[name]);
  }

  function show(card) {
    const decision = decisions.get(card.dataset.id);
    const action = decision ? decision.action : "keep";
    card.classList.toggle("dropped", action === "drop");
    const choice = card.querySelector(".choice");
    choice.querySelectorAll("button").forEach((button) => {
      button.setAttribute("aria-pressed", String(button.dataset.action === action));
    });
    choice.querySelectorAll("input").forEach((input) => {
      input.hidden = !fieldsOf(action, card).includes(input.name);
      if (decision && document.activeElement !== input) input.value = decision[input.name] || "";
    });
  }

  function update(id) {
    cards.filter((card) => card.dataset.id === id).forEach(show);
    const complete = [...decisions.values()].filter(isComplete).length;
    bar.hidden = complete === 0;
    bar.querySelector("span").textContent = `${complete} correction${complete === 1 ? "" : "s"}`;
  }

  function addChoice(card) {
    const choice = document.createElement("div");
    choice.className = "choice";
    const actions = ["keep", "drop", "relabel", "reprice"].filter(
      (action) => action === "keep" || action === "drop" || fieldsOf(action, card).length,
    );
    for (const action of actions) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = action;
      button.dataset.action = action;
      button.addEventListener("click", () => {
        if (action === "keep") decisions.delete(card.dataset.id);
        else decisions.set(card.dataset.id, { id: card.dataset.id, action });
        update(card.dataset.id);
      });
      choice.append(button);
    }
    for (const name of ["title", "category", "price"]) {
      const input = document.createElement("input");
      input.name = name;
      input.placeholder = `new ${name}`;
      input.setAttribute("aria-label", `new ${name} of ${card.dataset.id}`);
      if (name === "price") input.inputMode = "decimal";
      input.hidden = true;
      input.addEventListener("input", () => {
        const decision = decisions.get(card.dataset.id);
        if (decision) decision[name] = input.value.trim();
        update(card.dataset.id);
      });
      choice.append(input);
    }
    card.append(choice);
    show(card);
  }

  function cell(value) {
    return /[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
  }

  function asCsv() {
    const rows = [...decisions.values()].filter(isComplete);
    return [COLUMNS, ...rows.map((row) => COLUMNS.map((name) => row[name] || ""))]
      .map((row) => row.map(cell).join(","))
      .join("\n") + "\n";
  }

  bar.querySelector("button").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([asCsv()], { type: "text/csv" }));
    link.download = "corrections.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });
  cards.forEach(addChoice);
})();
