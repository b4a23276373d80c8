// What every page does: its plots take the page's colours, and what stands in <pre> can be copied.
"use strict";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function paint(root) {
  const ink = colour("--ink"), soft = colour("--soft"), line = colour("--line");
  const axis = {
    axis_label_text_color: ink, major_label_text_color: ink, axis_line_color: soft,
    major_tick_line_color: soft, minor_tick_line_color: null,
  };
  const looks = {
    LinearAxis: axis, LogAxis: axis, Grid: {grid_line_color: line, grid_line_alpha: 0.6},
    Legend: {label_text_color: ink, background_fill_color: colour("--paper"), background_fill_alpha: 0.75,
      border_line_color: null},
    ColorBar: {major_label_text_color: ink, title_text_color: ink, background_fill_color: null,
      major_tick_line_color: soft},
    Label: {text_color: ink}, LabelSet: {text_color: ink},
    Figure: {border_fill_color: colour("--paper"), border_line_color: null},
  };
  for (const model of root.references()) {
    if (looks[model.type]) model.setv(looks[model.type]);
    if (model.tags.includes("ink")) model.setv({line_color: {value: ink}});
  }
}

function paintAll() {
  for (const plots of Bokeh.documents) plots.roots().forEach(paint);
}

// Bokeh adds its documents one by one; `then` is called once they are all there.
function whenDrawn(then) {
  const wanted = document.querySelectorAll("[data-root-id]").length;
  const drawn = Bokeh.documents.reduce((sum, plots) => sum + plots.roots().length, 0);
  if (drawn >= wanted) then(); else requestAnimationFrame(() => whenDrawn(then));
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // a page from the disk may not be allowed to
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

document.addEventListener("click", async ({target}) => {
  const button = target.closest("button.copy");
  if (!button) return;
  await copyText(button.parentElement.querySelector("pre").textContent);
  button.textContent = "copied";
  setTimeout(() => { button.textContent = "copy"; }, 1500);
});

whenDrawn(() => {
  paintAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paintAll);
  document.documentElement.dataset.ready = "true";
});
