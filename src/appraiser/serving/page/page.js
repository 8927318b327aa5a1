// The page of the service: pictures in, an answer drawn. No library, nothing from elsewhere.
"use strict";

const at = (id) => document.getElementById(id);
const about = { max_pictures: 8, max_body_bytes: 48 << 20 };
const MOST_TRIES = 4;
const READ = ["image/jpeg", "image/png", "image/webp", "image/gif"];
let newest = 0; // number of the newest question: an older answer that comes late is not shown

const WORDS = {
  not_an_image: "This file is no picture that can be read here. Use JPEG, PNG, WebP or GIF.",
  unsupported_format: "This kind of picture is not read here. Save it as JPEG or PNG and try again.",
  truncated: "This picture is damaged: only a part of it can be read.",
  empty: "This file is empty.",
  too_large: "This picture is too large: a file may have 32 MB.",
  body_too_large: "These pictures are too large together. Send fewer of them, or smaller ones.",
  too_many_pixels: "This picture has more than 40 megapixels. Make it smaller and try again.",
  too_thin: "This picture is too long and thin to be looked at. Crop it and try again.",
  deadline: "It took too long. Try again in a moment.",
  body_timeout: "Sending the picture took too long. Try a smaller one, or a better connection.",
  internal: "The service made a mistake. Try another picture.",
  no_decoder: "Pictures cannot be read just now. Try again in a moment.",
  ending: "The service is being restarted. Try again in a moment.",
  no_key: "This service needs a key. Load the page again and give it as the password.",
};

function make(tag, attributes = {}, ...children) {
  const name = ["svg", "rect", "circle"].includes(tag) ? "http://www.w3.org/2000/svg" : null;
  const element = name ? document.createElementNS(name, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function say(text, kind = "") {
  at("status").className = kind;
  at("status").textContent = text;
}

function money(value, currency) {
  const digits = Number.isInteger(value) ? 0 : 2;
  const format = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  try {
    if (currency) return value.toLocaleString("en", { ...format, style: "currency", currency });
  } catch { /* no ISO code: written behind the number */ }
  return value.toLocaleString("en", format) + (currency ? ` ${currency}` : "");
}

const rough = (value, currency) => money(value >= 100 ? Math.round(value) : Math.round(value * 100) / 100, currency);

// ------------------------------------------------------------------------------------------------------- asking

async function ask(files) {
  if (files.length === 0) return;
  const number = ++newest;
  at("answer").hidden = true;
  if (files.length > about.max_pictures) {
    say(`At most ${about.max_pictures} pictures of one product can be looked at together.`, "bad");
    return;
  }
  const urls = files.map((file) => URL.createObjectURL(file));
  show(urls);
  const wrong = files.find((file) => file.type && !file.type.startsWith("image/"));
  if (wrong) {
    say(WORDS.not_an_image, "bad");
    return;
  }
  if (files.reduce((sum, file) => sum + file.size, 0) * (files.length > 1 ? 4 / 3 : 1) > about.max_body_bytes) {
    say(WORDS[files.length > 1 ? "body_too_large" : "too_large"], "bad");
    return;
  }
  say(files.length > 1 ? `Looking at ${files.length} pictures …` : "Looking …", "busy");
  const began = performance.now();
  try {
    const answer = await send(files, () => number === newest);
    if (number !== newest) return;
    answer.seconds = (performance.now() - began) / 1000;
    say("");
    draw(answer);
    remember(answer, urls);
  } catch (problem) {
    if (number === newest) say(problem.message, "bad");
  }
}

async function send(files, isWanted) {
  let body = files[0];
  let type = body.type || "image/jpeg";
  if (files.some((file) => !READ.includes(file.type || "image/jpeg"))) throw new Error(WORDS.unsupported_format);
  if (files.length > 1) {
    body = JSON.stringify({ pictures: await Promise.all(files.map(dataUrl)) });
    type = "application/json";
  }
  for (let attempt = 1; ; attempt++) {
    let response;
    try {
      response = await fetch("v1/appraise", { method: "POST", headers: { "Content-Type": type }, body });
    } catch {
      throw new Error("The service cannot be reached. Is it still running?");
    }
    if (response.ok) return response.json();
    const error = (await response.json().catch(() => ({}))).error || {};
    if (response.status !== 429 || attempt === MOST_TRIES || !isWanted()) {
      const busy = "Many people are asking just now. Try again in a moment.";
      // Of several pictures the service says which one it is about.
      const words = files.length > 1 && /^picture \d/.test(error.message || "") ? capital(error.message) : WORDS[error.code];
      throw new Error(response.status === 429 ? busy : words || capital(error.message) || "It did not work.");
    }
    const seconds = Math.min(10, Number(response.headers.get("Retry-After")) || 1);
    say(`The service is busy; asking again in ${seconds} s …`, "busy");
    await new Promise((resume) => setTimeout(resume, 1000 * seconds));
    if (!isWanted()) throw new Error("Another picture was shown meanwhile.");
  }
}

const capital = (text) => text && text[0].toUpperCase() + text.slice(1) + (text.endsWith(".") ? "" : ".");

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    // A file without a type is sent as JPEG; what it is, the service finds out.
    reader.onload = () => resolve(reader.result.replace(/^data:(?!image\/)[^;,]*/, "data:image/jpeg"));
    reader.onerror = () => reject(new Error("A file cannot be read."));
    reader.readAsDataURL(file);
  });
}

// ------------------------------------------------------------------------------------------------------ showing

function show(urls) {
  at("shown").replaceChildren(...urls.map((src, i) => make("img", { src, alt: `Picture ${i + 1} that you showed` })));
  for (const image of at("shown").children) image.onerror = () => image.remove();
}

function draw(answer) {
  const parts = [];
  if (answer.title !== null) parts.push(make("p", { class: "name" }, answer.title));
  if (answer.category !== null) parts.push(make("p", { class: "category" }, answer.category));
  const own = Object.entries(answer.fields).filter(([key]) => !["title", "category", "price", "currency"].includes(key));
  if (own.length) parts.push(list(own.map(([key, value]) => [key.replaceAll("_", " "), String(value)])));
  parts.push(...drawPrice(answer));
  if (!answer.parsed) {
    parts.push(make("p", { class: "quiet" }, `Not everything could be read from the answer: “${answer.text}”`));
  }
  if (answer.similar.length) parts.push(...drawSimilar(answer));
  parts.push(drawDetails(answer));
  at("answer").replaceChildren(...parts);
  at("answer").hidden = false;
  // On a phone the answer lies below the pictures.
  if (at("result").getBoundingClientRect().top > innerHeight * 0.7) at("result").scrollIntoView({ block: "start" });
}

function drawPrice(answer) {
  if (answer.price === null) {
    return answer.abstained ? [make("p", { class: "price" }, "No price"), make("p", {}, `The model is unsure: ${answer.abstained}.`)] : [];
  }
  const parts = [make("p", { class: "price" }, money(answer.price, answer.currency))];
  const interval = answer.price_interval;
  if (interval) {
    const [low, high] = [interval.low, interval.high].map((value) => rough(value, answer.currency));
    parts.push(make("p", {}, `Most likely between ${low} and ${high}.`));
  }
  if (interval || answer.category_prices) parts.push(drawRange(answer, interval, answer.category_prices));
  return parts;
}

// The price and its interval on the category's usual range, on a logarithmic axis.
function drawRange(answer, interval, usual) {
  const values = [answer.price, ...(interval ? [interval.low, interval.high] : []), ...(usual ? [usual.low, usual.high] : [])];
  const [least, most] = [Math.max(0.01, Math.min(...values)) * 0.85, Math.max(...values) * 1.15];
  const share = (value) => 100 * (Math.log(Math.max(value, least) / least) / Math.log(most / least));
  const x = (value) => 5.6 * share(value);
  const say80 = interval ? `${interval.percent} % of such products cost ${rough(interval.low, answer.currency)} to ${rough(interval.high, answer.currency)}.` : "";
  const sayUsual = usual ? `${answer.category} usually cost ${rough(usual.low, answer.currency)} to ${rough(usual.high, answer.currency)}.` : "";
  const svg = make("svg", { class: "range", viewBox: "0 0 560 44", role: "img", "aria-label": `${say80} ${sayUsual}`.trim() });
  if (usual) svg.append(make("rect", { class: "usual", x: x(usual.low), y: 10, width: x(usual.high) - x(usual.low), height: 26, rx: 6 }));
  if (interval) svg.append(make("rect", { class: "likely", x: x(interval.low), y: 14, width: x(interval.high) - x(interval.low), height: 18, rx: 5 }));
  svg.append(make("circle", { class: "point", cx: x(answer.price), cy: 23, r: 8 }));
  const [low, high] = usual ? [usual.low, usual.high] : [interval.low, interval.high];
  const ends = make("p", { class: "ends", "aria-hidden": "true" }, ...[low, high].map((value) => make("span", {}, rough(value, answer.currency))));
  ends.style.marginLeft = `${share(low)}%`;
  ends.style.marginRight = `${100 - share(high)}%`;
  const box = make("div", {}, svg, ends);
  if (usual) box.append(make("p", { class: "quiet" }, `Wide bar: what ${usual.num_products.toLocaleString("en")} known ${answer.category} cost.`));
  return box;
}

function drawSimilar(answer) {
  const cards = answer.similar.map((product) => make("li", {},
    make("img", { src: product.thumbnail, alt: "" }),
    make("div", {},
      ...(product.price === null ? [] : [make("b", {}, money(product.price, answer.currency))]),
      product.title || product.category || product.id)));
  return [make("h3", { id: "similar-h" }, "Known products that look like it"), make("ul", { class: "cards", "aria-labelledby": "similar-h" }, ...cards)];
}

function drawDetails(answer) {
  const rows = [["Confidence", answer.confidence.toFixed(2) + " (mean probability of the words)"]];
  const wide = answer.price_interval_90;
  if (wide) rows.push(["90 of 100 cases", `${rough(wide.low, answer.currency)} to ${rough(wide.high, answer.currency)}`]);
  if (answer.alternatives.length) {
    rows.push(["Other prices", answer.alternatives.map((one) => `${money(one.price, answer.currency)} (${Math.round(100 * one.probability)} %)`).join(", ")]);
  }
  rows.push(["Time", `${answer.seconds.toFixed(2)} s; the model took ${(answer.latency_ms.answering / 1000).toFixed(2)} s`]);
  rows.push(["As written", answer.text]);
  return make("details", {}, make("summary", {}, "How sure, and how it was found"), list(rows));
}

const list = (rows) => make("dl", {}, ...rows.flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, value)]));

function remember(answer, urls) {
  const price = answer.price === null ? "" : money(answer.price, answer.currency);
  const label = [answer.title || answer.category || "Answer", price].filter(Boolean).join(", ");
  const button = make("button", { class: "tile", type: "button" }, make("img", { src: urls[0], alt: "" }), make("span", {}, label));
  button.onclick = () => {
    newest++;
    show(urls);
    say("");
    draw(answer);
  };
  at("history").querySelector("ul").prepend(make("li", {}, button));
  at("history").hidden = false;
}

// ---------------------------------------------------------------------------------------------------- beginning

function listen() {
  for (const id of ["files", "camera"]) {
    at(id).onchange = () => {
      ask([...at(id).files]);
      at(id).value = "";
    };
  }
  const drop = at("drop");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) drop.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const files = [...event.dataTransfer.files];
    if (files.length) ask(files);
    else say("That is no picture. Drop a file, or paste the picture itself.", "bad");
  });
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length) ask(files);
    else say("There is no picture on the clipboard.", "bad");
  });
}

async function begin() {
  listen();
  try {
    Object.assign(about, await (await fetch("v1/about")).json());
  } catch {
    say("The service cannot be reached. Is it still running?", "bad");
    return;
  }
  at("model").textContent = `Model: ${about.model}`;
  const tiles = Array.from({ length: about.num_samples }, (_, i) => {
    const button = make("button", { class: "tile", type: "button" }, make("img", { src: `v1/samples/${i}`, alt: `Sample picture ${i + 1}` }));
    button.onclick = async () => {
      const response = await fetch(`v1/samples/${i}`).catch(() => null);
      if (response && response.ok) ask([await response.blob()]);
      else say("The service cannot be reached. Is it still running?", "bad");
    };
    return make("li", {}, button);
  });
  at("samples").querySelector("ul").replaceChildren(...tiles);
  at("samples").hidden = tiles.length === 0;
}

begin();
