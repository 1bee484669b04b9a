"use strict";
const byId = (id) => document.getElementById(id);
const { aspects, items } = JSON.parse(byId("data").textContent);
const page = document.body.dataset.page, slot = "medqlora-rating-" + page;
let state = { rater: "", ratings: {}, place: 0 }, saves = true;

// text goes in as text alone: nothing of a question or an answer is read as HTML
function made(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}
function save() {
  try { localStorage.setItem(slot, JSON.stringify(state)); } catch { saves = false; }
  byId("unsaved").hidden = saves;
}
function rated(item) {
  const found = state.ratings[item.item] || {};
  return ["1", "2"].every((place) => Object.keys(aspects).every((aspect) => found[place] && found[place][aspect]));
}
function tell() {
  const done = items.filter(rated).length;
  byId("progress").value = done;
  byId("told").textContent = done + " of " + items.length + " rated";
}
function set(item, place, aspect, value) {
  const of = (state.ratings[item.item] = state.ratings[item.item] || {});
  (of[place] = of[place] || {})[aspect] = value;
  save();
  tell();
}
function show(focus) {
  const item = items[state.place], main = byId("main");
  main.replaceChildren(made("h2", "", state.place + 1 + ". " + item.question));
  if (item.contexts.length) {
    const details = made("details");
    details.append(made("summary", "", "Context"), ...item.contexts.map((text) => made("p", "text", text)));
    main.append(details);
  }
  const answers = made("div", "answers");
  item.answers.forEach((text, index) => {
    const place = String(index + 1), card = made("article");
    card.append(made("h3", "", "Answer " + place), made("p", "text", text || "(no text)"));
    for (const [aspect, scale] of Object.entries(aspects)) {
      const group = made("fieldset"), row = made("div", "scale");
      group.append(made("legend", "", aspect[0].toUpperCase() + aspect.slice(1)), made("span", "small soft", scale), row);
      for (let value = 1; value <= 5; value++) {
        const label = made("label"), radio = made("input");
        radio.type = "radio";
        radio.name = place + aspect;
        radio.value = value;
        radio.checked = ((state.ratings[item.item] || {})[place] || {})[aspect] === value;
        radio.addEventListener("change", () => set(item, place, aspect, value));
        label.append(radio, String(value));
        row.append(label);
      }
      card.append(group);
    }
    answers.append(card);
  });
  main.append(answers);
  byId("before").disabled = state.place === 0;
  byId("next").disabled = state.place === items.length - 1;
  tell();
  save();
  if (focus) { main.focus(); scrollTo(0, 0); }
}
function go(place) { state.place = Math.max(0, Math.min(items.length - 1, place)); show(true); }
byId("before").addEventListener("click", () => go(state.place - 1));
byId("next").addEventListener("click", () => go(state.place + 1));
byId("open").addEventListener("click", () => {
  const open = items.findIndex((item) => !rated(item));
  if (open < 0) byId("state").textContent = "Everything is rated: export."; else go(open);
});
byId("rater").addEventListener("input", (event) => { state.rater = event.target.value.trim(); save(); });
byId("export").addEventListener("click", () => {
  if (!state.rater) { byId("state").textContent = "Write your name or code first."; byId("rater").focus(); return; }
  const found = { page, rater: state.rater, exported: new Date().toISOString(), ratings: state.ratings };
  const link = made("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(found, null, 1)], { type: "application/json" }));
  link.download = "ratings-" + state.rater.replace(/[^A-Za-z0-9_-]+/g, "-") + ".json";
  link.click();
  URL.revokeObjectURL(link.href);
  byId("state").textContent = link.download + " was written with the ratings of " + Object.keys(state.ratings).length + " questions.";
});
byId("import").addEventListener("change", async (event) => {
  try {
    const found = JSON.parse(await event.target.files[0].text());
    if (found.page !== page) throw new Error("it belongs to another page");
    state = { rater: String(found.rater), ratings: found.ratings, place: 0 };
    byId("rater").value = state.rater;
    show(true);
    byId("state").textContent = "Goes on with that file.";
  } catch (error) { byId("state").textContent = "Not read: " + error.message; }
});
try {
  const kept = JSON.parse(localStorage.getItem(slot));
  if (kept) state = { ...state, ...kept };
} catch { saves = false; }
byId("rater").value = state.rater;
if (items.length) go(Math.min(state.place, items.length - 1));
