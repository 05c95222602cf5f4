"use strict";
const table = document.querySelector("table.class");
const rows = [...table.tBodies[0].rows];
const status = document.querySelector("[role=status]");
const [text, check, cause] = ["text", "check", "cause"].map(id => document.getElementById(id));
const show = () => {
    let shown = 0;
    for (const row of rows) {
        const has = (field, value) => !value || (row.dataset[field] || "").split("|").includes(value);
        const fits = row.cells[0].textContent.toLowerCase().includes(text.value.toLowerCase())
            && has("failed", check.value) && has("causes", cause.value);
        row.hidden = !fits;
        shown += fits;
    }
    status.textContent = `${shown} of ${rows.length} submissions`;
};
for (const field of [text, check, cause]) field.addEventListener("input", show);
document.querySelector("form").addEventListener("submit", event => event.preventDefault());
table.tHead.addEventListener("click", event => {
    const button = event.target.closest("button");
    if (!button) return;
    const head = button.closest("th");
    const down = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "ascending" : "descending");
    const key = row => row.cells[head.cellIndex]?.dataset.key ?? "";
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    rows.sort((a, b) => compare(key(a), key(b)) * (down ? 1 : -1));
    table.tBodies[0].append(...rows);
});
// Closed details leave the focus where they were opened.
let opener = null;
table.addEventListener("click", event => { opener = event.target.closest("a") || opener; });
addEventListener("hashchange", () => {
    const details = document.querySelector("section:target, article:target");
    (details || opener)?.focus();
});
for (const button of document.querySelectorAll("button.print")) {
    button.hidden = false;
    button.addEventListener("click", () => print());
}
show();
