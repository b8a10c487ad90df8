// Faults of the layout as sentences: text cut off, out of the page, or over other text.
(() => {
  const faults = [];
  const root = document.documentElement;
  const print = matchMedia("print").matches;
  const name = e => `<${e.tagName.toLowerCase()}${e.id ? " id=" + e.id : ""}${e.getAttribute("class") ? " class=" + e.getAttribute("class") : ""}> "${e.textContent.trim().slice(0, 60)}"`;
  if (root.scrollWidth > root.clientWidth)
    faults.push(`the page is ${root.scrollWidth} wide in a window of ${root.clientWidth}`);
  const scrolls = e => ["auto", "scroll"].includes(getComputedStyle(e).overflowX);
  for (const e of document.querySelectorAll("body *")) {
    if (e.closest("svg") || !e.checkVisibility()) continue;
    const style = getComputedStyle(e);
    if (e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0 && style.display !== "inline") {
      if (["hidden", "clip"].includes(style.overflowX)) faults.push(`cut off: ${name(e)}`);
      // Paper does not scroll.
      if (print && scrolls(e)) faults.push(`cut off in print: ${name(e)}`);
    }
    const text = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!text) continue;
    const box = e.getBoundingClientRect();
    let inside = false;
    for (let p = e.parentElement; p; p = p.parentElement) inside ||= scrolls(p);
    if ((!inside || print) && box.width > 0 && (box.right > root.clientWidth + 1 || box.left < -1))
      faults.push(`out of the page: ${name(e)}`);
  }
  for (const svg of document.querySelectorAll("svg")) {
    if (!svg.checkVisibility()) continue;
    const frame = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].map(t => [t, t.getBoundingClientRect()]);
    for (const [i, [t, a]] of texts.entries()) {
      if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.top < frame.top - 1 || a.bottom > frame.bottom + 1)
        faults.push(`out of the picture: ${name(t)}`);
      for (const [u, b] of texts.slice(i + 1)) {
        const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (across > 2 && down > 4) faults.push(`over each other: ${name(t)} and ${name(u)}`);
      }
    }
  }
  return faults;
})()
