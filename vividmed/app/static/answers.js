// Questions and answers as elements; text of the model is only ever set as text.

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

export function addQuestion(log, text) {
  log.append(element("div", "question", text));
  log.scrollTop = log.scrollHeight;
}

export function addAnswer(log) {
  const answer = element("div", "answer");
  log.append(answer);
  return answer;
}

export function addText(log, answer, piece) {
  answer.append(piece);
  log.scrollTop = log.scrollHeight;
}

// Writes the text anew with its phrases as buttons, and the measurements below it.
export function showPhrases(answer, found, onPhrase) {
  answer.textContent = "";
  let cursor = 0;
  for (const phrase of [...found.phrases].sort((one, other) => one.start - other.start)) {
    answer.append(sliceText(found.text, cursor, phrase.start), button(phrase, onPhrase));
    cursor = phrase.end;
  }
  answer.append(sliceText(found.text, cursor));
  const measured = found.phrases.filter((phrase) => phrase.measured);
  if (measured.length) answer.append(table(measured));
  const lost = found.phrases.filter((phrase) => !phrase.slices);
  if (lost.length)
    answer.append(element("p", "", `Not found in the scan: ${lost.map((phrase) => phrase.text).join(", ")}`));
}

// The server counts characters, a string code units.
function sliceText(text, start, end) {
  return Array.from(text).slice(start, end).join("");
}

function button(phrase, onPhrase) {
  const made = element("button", "phrase", phrase.text);
  made.type = "button";
  made.style.borderBottomColor = `rgb(${phrase.colour.join(",")})`;
  made.setAttribute("aria-pressed", "false");
  made.dataset.number = phrase.number;
  made.disabled = !phrase.slices;
  made.title = phrase.slices ? "Show it in the scan" : "Not found in the scan";
  made.addEventListener("click", () => onPhrase(phrase, made));
  return made;
}

function table(phrases) {
  const made = element("table");
  const head = made.createTHead().insertRow();
  // Only images in Hounsfield units have a mean.
  const hasMean = phrases.some(({ measured }) => measured.mean_hu != null);
  for (const title of ["Measured", "Volume", "Diameters", ...(hasMean ? ["Mean"] : [])])
    head.append(element("th", "", title));
  const body = made.createTBody();
  for (const { text, measured } of phrases) {
    const row = body.insertRow();
    const diameters = [measured.longest_diameter_mm, measured.short_diameter_mm].map((mm) => mm.toFixed(0));
    row.insertCell().textContent = text;
    row.insertCell().textContent = `${Number(measured.volume_ml.toPrecision(3))} mL`;
    row.insertCell().textContent = `${diameters.join(" x ")} mm`;
    if (hasMean)
      row.insertCell().textContent = measured.mean_hu == null ? "" : `${measured.mean_hu.toFixed(0)} HU`;
  }
  return made;
}
