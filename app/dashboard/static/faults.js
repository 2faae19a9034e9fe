// What is wrong with a field stands at the field, in the words of the API.
//
//   <input data-pointer="/eps" aria-describedby="eps-fault"> <span class="bad fault" id="eps-fault" hidden></span>
//   const rest = showFaults(form, error.faults);   // what belongs to no field that is seen

export function clearFaults(form) {
  for (const place of form.querySelectorAll(".fault")) place.hidden = true;
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
}

// The first field with a fault has the focus.
export function showFaults(form, faults) {
  const left = faults.filter((fault) => !shown(form, fault));
  form.querySelector("[aria-invalid]")?.focus();
  return left;
}

function shown(form, { pointer, detail }) {
  const control = form.querySelector(`[data-pointer="${CSS.escape(pointer)}"]`);
  if (!control || control.closest("[hidden]")) return false;
  control.closest("details")?.setAttribute("open", "");
  control.setAttribute("aria-invalid", "true");
  const place = document.getElementById(control.getAttribute("aria-describedby").split(" ").at(-1));
  place.textContent = detail.replace(/^in the query: /, "");
  place.hidden = false;
  return true;
}
