"use strict";
// The table of every question. Texts reach the page as text nodes alone, so no question can become markup.
const PAGE = 25;
const make = (tag, name, ...parts) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  node.append(...parts.filter((part) => part !== null && part !== undefined));
  return node;
};
const percent = (value) => (100 * value).toFixed(1) + "%";
const titled = (title, ...parts) => make("div", "part", make("h4", "", title), ...parts);
const folded = (title, ...parts) => make("details", "", make("summary", "", title), ...parts);

function probabilities(entries, gold, decision) {
  const rows = entries.map(([label, value]) => {
    const bar = make("meter", "");
    bar.value = value;
    bar.setAttribute("aria-hidden", "true");
    const marks = [label === decision ? "decision" : "", label === gold ? "right answer" : ""].filter(Boolean);
    return make("tr", "", make("td", "", label), make("td", "", percent(value)), make("td", "", bar),
      make("td", "soft", marks.join(", ")));
  });
  return make("table", "", make("tbody", "", ...rows));
}

function body(row) {
  const box = make("div", "body");
  for (const source of row.images || []) {
    const image = make("img", "thumbnail");
    image.src = source;
    image.alt = `Image of question ${row.id}`;
    box.append(image);
  }
  if (row.options) box.append(make("div", "part", ...row.options.map(([label, text]) => make("p", "", `${label}. ${text}`))));
  if (row.probabilities) box.append(titled("Probabilities", probabilities(row.probabilities, row.gold, row.decision)));
  if (row.text !== undefined) {
    box.append(titled("Generated text", make("p", "text", row.text || "(nothing)")));
    if (row.parsed !== undefined) box.append(make("p", "small soft", row.parsed === null ? "No decision can be read from it." : `Read as ${row.parsed}.`));
  }
  if (row.base !== undefined) box.append(titled("Bare base", make("p", "text", row.base === null ? "unreadable" : row.base)));
  if (row.human) box.append(titled("Human annotators", ...row.human.map(([name, answer]) => make("p", "", `${name}: ${answer}`))));
  if (row.contexts) box.append(folded("Context", ...row.contexts.map(([label, text]) => label ? make("p", "", make("b", "", label), " ", text) : make("p", "", text))));
  if (row.conclusion) box.append(folded("The data set's own conclusion", make("p", "", row.conclusion)));
  box.append(make("p", "small soft", `id ${row.id}`));
  return box;
}

function line(row, free) {
  const question = make("details", "", make("summary", "", row.question || `(question ${row.id})`));
  const opened = make("tr", "opened", make("td", ""));
  opened.firstChild.colSpan = 4;
  question.addEventListener("toggle", () => {
    if (!question.open) return opened.remove();
    if (!opened.firstChild.hasChildNodes()) opened.firstChild.append(body(row));
    question.closest("tr").after(opened);
  });
  const cell = (name, title, ...parts) => {
    const made = make("td", name, ...parts);
    made.dataset.title = title;
    return made;
  };
  const outcome = make("span", row.right ? "right" : "wrong", row.right ? "✓ " : "✗ ");
  outcome.setAttribute("aria-label", row.right ? "right: " : "wrong: ");
  const decision = row.decision === null ? "unreadable" : row.decision;
  return make("tr", "", make("td", "question", question), cell("text", free ? "Reference" : "Right answer", row.gold),
    cell("text", free ? "Generated" : "Decision", outcome, decision),
    cell("number", free ? "Token F1" : "Confidence", row.sure === null ? "–" : free ? row.sure.toFixed(2) : percent(row.sure)));
}

function browse(box) {
  const data = JSON.parse(box.querySelector("script").textContent);
  const rows = data.rows, free = data.free;
  for (const row of rows) row.all = [row.id, row.question, row.gold, row.decision, row.text, row.conclusion,
    ...(row.options || []).flat(), ...(row.contexts || []).flat()].join("\n").toLowerCase();
  const field = (name) => box.querySelector(`[name=${name}]`);
  const list = box.querySelector("tbody"), count = box.querySelector(".count");
  const [previous, next] = box.querySelectorAll("button");
  const by = {
    order: null,
    sure: (a, b) => (b.sure ?? -1) - (a.sure ?? -1),
    unsure: (a, b) => (a.sure ?? 2) - (b.sure ?? 2),
  };
  const outcomes = {
    all: () => true,
    wrong: (row) => !row.right,
    right: (row) => row.right,
    unreadable: (row) => row.decision === null || row.parsed === null,
    gained: (row) => row.right && row.base_right === false,
    lost: (row) => !row.right && row.base_right === true,
  };
  let shown = rows, page = 0;
  const draw = () => {
    const first = page * PAGE, part = shown.slice(first, first + PAGE);
    list.replaceChildren(...part.map((row) => line(row, free)));
    count.textContent = shown.length ? `${first + 1} to ${first + part.length} of ${shown.length}${shown.length < rows.length ? ` (of ${rows.length} in all)` : ""}` : `none of ${rows.length}`;
    previous.disabled = page === 0;
    next.disabled = first + PAGE >= shown.length;
  };
  const filter = () => {
    const words = field("words").value.toLowerCase().split(/\s+/).filter(Boolean);
    const outcome = outcomes[field("outcome").value], gold = field("gold"), decision = field("decision");
    shown = rows.filter((row) => outcome(row) && words.every((word) => row.all.includes(word)) &&
      (!gold || !gold.value || row.gold === gold.value) && (!decision || !decision.value || row.decision === decision.value));
    const order = by[field("sort").value];
    if (order) shown.sort(order);
    page = 0;
    draw();
  };
  const turn = (by) => {
    page += by;
    draw();
    box.scrollIntoView();
  };
  let waiting = 0;
  field("words").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 120);
  });
  for (const select of box.querySelectorAll("select")) select.addEventListener("change", filter);
  previous.addEventListener("click", () => turn(-1));
  next.addEventListener("click", () => turn(1));
  box.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
  box.hidden = false;
  filter();
}

for (const box of document.querySelectorAll(".browse")) {
  // the table of a folded set is built when the set is opened
  const set = box.closest("details.set");
  if (set && !set.open) set.addEventListener("toggle", () => browse(box), { once: true });
  else browse(box);
}
