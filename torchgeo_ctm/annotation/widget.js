// A card for each window: its picture, a button for each class, "only these", "not sure".
const url = (bytes) => URL.createObjectURL(new Blob([bytes], { type: "image/png" }));

function element(tag, className, parent, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  parent.append(made);
  return made;
}

function render({ model, el }) {
  const names = model.get("classes"), colors = model.get("colors");
  const pictures = model.get("pictures").map((views) => views.map(url));
  let view = 0;

  // [classes, only these, not sure] of a window after a click
  function change(index, what) {
    const answers = structuredClone(model.get("answers"));
    let [classes, only, unsure] = answers[index];
    if (what === "only") [only, unsure] = [!only, false];
    else if (what === "unsure") [classes, only, unsure] = [[], false, !unsure];
    else {
      classes = classes.includes(what) ? classes.filter((c) => c !== what) : [...classes, what].sort((a, b) => a - b);
      unsure = false;
    }
    answers[index] = [classes, only, unsure];
    model.set("answers", answers);
    model.save_changes();
  }

  const bar = element("div", "ctm-bar", el);
  const message = element("span", "", bar);
  const composite = element("button", "", bar, "f: false color");
  composite.hidden = !pictures.some((views) => views.length > 1);
  element("span", "", bar, "Keys: 1…9 classes, o only these, n not sure, ← → windows");
  const grid = element("div", "ctm", el);
  // JupyterLab would take the digits for its own shortcuts
  grid.setAttribute("data-lm-suppress-shortcuts", "true");

  const cards = pictures.map((views, index) => {
    const card = element("div", "ctm-card", grid);
    card.tabIndex = 0;
    const image = element("img", "", card);
    image.alt = `window ${index + 1}`;
    const buttons = [...names.keys(), "only", "unsure"].map((what) => {
      const own = typeof what === "number";
      const text = own ? names[what] : { only: "only these", unsure: "not sure" }[what];
      const button = element("button", own ? "" : "ctm-other", card, text);
      button.tabIndex = -1;
      if (own) button.style.borderLeftColor = colors[what];
      button.onclick = () => { change(index, what); card.focus(); };
      return [what, button];
    });
    card.onkeydown = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const { key } = event, digit = Number(key) - 1;
      const step = { ArrowLeft: -1, ArrowRight: 1 }[key];
      if (step) cards[index + step]?.card.focus();
      else if (key === "o") change(index, "only");
      else if (key === "n") change(index, "unsure");
      else if (key === "f") composite.click();
      else if (key >= "1" && key <= "9" && digit < names.length) change(index, digit);
      else return;
      event.preventDefault();
      event.stopPropagation();
    };
    return { card, image, buttons, views };
  });

  function show() {
    message.textContent = model.get("message");
    message.className = message.textContent.startsWith("Not saved") ? "ctm-bad" : "";
    composite.textContent = view ? "f: RGB" : "f: false color";
    model.get("answers").forEach(([classes, only, unsure], index) => {
      const { card, image, buttons, views } = cards[index];
      const source = views[view % views.length];
      if (image.src !== source) image.src = source;
      card.classList.toggle("ctm-done", classes.length > 0 || only || unsure);
      for (const [what, button] of buttons) {
        const on = { only, unsure }[what] ?? classes.includes(what);
        button.setAttribute("aria-pressed", String(on));
      }
    });
  }
  composite.onclick = () => { view = 1 - view; show(); };
  model.on("change:answers change:message", show);
  show();
  return () => pictures.flat().forEach((each) => URL.revokeObjectURL(each));
}

export default { render };
