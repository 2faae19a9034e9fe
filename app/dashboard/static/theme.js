// What every page has. Whoever signed in can sign out. Colours: light, dark, or as the system says: set before the first paint, kept in this browser.
(() => {
  const root = document.documentElement;
  const NEXT = { system: "dark", dark: "light", light: "system" };
  const SIGNS = { system: "◐", dark: "☾", light: "☀" };
  const WORDS = { system: "as the system", dark: "dark", light: "light" };
  let theme = localStorage.getItem("theme");
  if (!(theme in NEXT)) theme = "system";

  function apply() {
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) {
      button.textContent = SIGNS[theme];
      button.setAttribute("aria-label", `Colours: ${WORDS[theme]}`);
      button.title = `Colours: ${WORDS[theme]}`;
    }
    document.dispatchEvent(new Event("themechange"));
  }

  apply();
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    const out = document.getElementById("sign-out");
    if (out) out.hidden = !document.cookie.includes("spikeproof_signed_in=1");
    document.getElementById("theme")?.addEventListener("click", () => {
      theme = NEXT[theme];
      localStorage.setItem("theme", theme);
      apply();
    });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
})();
