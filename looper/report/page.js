(() => {
  const form = document.getElementById("filter");
  if (!form) return;
  const cards = [...document.querySelectorAll("#sessions > details")];
  const told = form.querySelector("output");
  const apply = () => {
    const wanted = ["arm", "family", "result"].map((key) => [key, form.elements[key].value]);
    const text = form.elements.text.value.trim().toLowerCase();
    let shown = 0;
    for (const card of cards) {
      const fits =
        wanted.every(([key, value]) => !value || card.dataset[key] === value) &&
        (!text || card.textContent.toLowerCase().includes(text));
      card.hidden = !fits;
      shown += fits;
    }
    told.textContent = `${shown} of ${cards.length}`;
  };
  form.hidden = false;
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
})();
