// Results as elements. Texts of users and labels of models become text nodes, never HTML.

/** Make an element; strings among the children become text. */
export function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** A table with the cosine of every pair of embeddings. */
export function heatMap(texts, embeddings) {
  const head = element("tr", {}, element("td"), ...texts.map((_, index) => element("th", { scope: "col" }, `${index + 1}`)));
  head.firstChild.className = "corner";
  const rows = texts.map((text, row) => element("tr", {},
    element("th", { scope: "row", title: text }, `${row + 1}  ${text}`),
    ...texts.map((_, column) => cell(cosine(embeddings[row], embeddings[column]))),
  ));
  const table = element("table", { className: "heat" }, element("thead", {}, head), element("tbody", {}, ...rows));
  return element("div", { className: "scroll", tabIndex: 0 }, table);
}

function cell(value) {
  const made = element("td", {}, value.toFixed(2));
  // Squares: most cosines are high, and few colours lie between those for dark and for light text.
  made.style.setProperty("--share", `${Math.max(0, value) ** 2 * 100}%`);
  made.classList.toggle("strong", value > 0.85);
  return made;
}

function cosine(a, b) {
  let product = 0, squareA = 0, squareB = 0;
  a.forEach((value, index) => {
    product += value * b[index];
    squareA += value * value;
    squareB += b[index] * b[index];
  });
  return product / Math.sqrt(squareA * squareB || 1);
}

/** Names with their scores as bars, in the given order. Scores outside of 0 to 1 are scaled to the largest. */
export function bars(scores) {
  const largest = Math.max(1, ...scores.map(([, score]) => Math.abs(score)));
  return element("ul", { className: "bars" }, ...scores.map(([name, score]) => {
    const bar = element("span", { className: "bar" });
    bar.style.setProperty("--share", `${Math.max(0, score / largest) * 100}%`);
    return element("li", {},
      element("span", { className: "name" }, name), bar, element("span", { className: "number" }, score.toFixed(3)));
  }));
}

/** One card per text, with what `view` makes of its item. */
export function cards(texts, items, view) {
  return items.map((item) => element("div", { className: "card" }, element("p", { dir: "auto" }, texts[item.index]), view(item)));
}

/** A text with spans {start, end, label?, score}. Offsets count code points, which JavaScript's own indices do not. */
export function markedText(text, spans) {
  const points = Array.from(text);
  const paragraph = element("p", { className: "marked", dir: "auto" });
  let end = 0;
  for (const span of spans.toSorted((a, b) => a.start - b.start)) {
    if (span.start < end) continue;
    const note = element("small", {}, [span.label, span.score.toFixed(2)].filter(Boolean).join(" "));
    const mark = element("mark", {}, points.slice(span.start, span.end).join(""), note);
    mark.style.setProperty("--hue", hue(span.label ?? ""));
    paragraph.append(points.slice(end, span.start).join(""), mark);
    end = span.end;
  }
  paragraph.append(points.slice(end).join(""));
  return element("div", { className: "card" }, paragraph);
}

/** A colour for a label: the same one every time. */
function hue(label) {
  let sum = 0;
  for (const point of label) sum = (sum * 31 + point.codePointAt(0)) % 360;
  return `${(sum * 137) % 360}`;
}
