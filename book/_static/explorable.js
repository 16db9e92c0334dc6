// Explorable figures: each still gives way to a live chart, and the sliders set the charts' parameters.
// The library that draws the charts is fetched only by a page that has such a figure. Without scripts the stills stay.
(() => {
  const library = new URL("vega.mjs", document.currentScript.src);

  const loaded = () =>
    new Promise((resolve, reject) => {
      const script = Object.assign(document.createElement("script"), { src: library, onload: resolve, onerror: reject });
      document.head.append(script);
    });

  // A chart whose width may change takes the width of its place, less what its axes need.
  function fit(view, place) {
    const beside = place.querySelector("svg").getAttribute("width") - view.width();
    const resize = () => view.width(Math.max(180, place.clientWidth - beside)).runAsync();
    new ResizeObserver(resize).observe(place);
  }

  async function enliven(figure) {
    const specs = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
    const places = [...figure.querySelectorAll(".explorable-view")];
    const options = { mode: "vega", renderer: "svg", actions: false, defaultStyle: false, tooltip: false };
    const views = await Promise.all(
      specs.map(async (spec, number) => {
        const { view } = await window.vegaEmbed(places[number], spec, options);
        if (spec.width) fit(view, places[number]);
        return view;
      }),
    );
    for (const input of figure.querySelectorAll("input[type=range]")) {
      const set = () => {
        const text = `${input.value} ${input.dataset.unit}`.trim();
        input.labels[0].parentElement.querySelector("output").value = text;
        input.setAttribute("aria-valuetext", text);
        for (const view of views) view.signal(input.name, Number(input.value)).runAsync();
      };
      input.addEventListener("input", set);
    }
    figure.querySelector(".explorable-sliders").hidden = false;
  }

  document.addEventListener("DOMContentLoaded", async () => {
    const figures = [...document.querySelectorAll("figure.explorable")];
    if (!figures.length) return;
    await loaded();
    await Promise.all(figures.map(enliven));
  });
})();
