// What is wider than its place can be scrolled by keyboard too: code by Material, tables here.
const mark = () => {
  for (const place of document.querySelectorAll(".md-typeset__scrollwrap")) {
    if (place.scrollWidth > place.clientWidth) place.tabIndex = 0;
    else place.removeAttribute("tabindex");
  }
};
addEventListener("load", mark);
addEventListener("resize", mark);
