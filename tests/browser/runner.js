// Runs what the tests want run, in a page or in a worker: it asks for code, and tells what came of it.

import { loadPyodide } from "/pyodide/pyodide.mjs";

export async function run(place) {
  const said = [];
  const failed = (event) => said.push(`unhandled: ${event.reason ?? event.message}`);
  self.addEventListener("unhandledrejection", failed);
  self.addEventListener("error", failed);
  let pyodide, broken;
  try {
    pyodide = await loadPyodide({ indexURL: "/pyodide/", stderr: (line) => said.push(line) });
    await pyodide.loadPackage("micropip", { messageCallback: () => {} });
  } catch (error) {
    broken = String(error.stack ?? error);
  }
  for (;;) {
    const asked = await fetch(`/next?place=${place}`, { cache: "no-store" });
    if (asked.status !== 200) continue;
    work(await asked.json()); // which the next code may have to do with
  }

  async function work({ id, code }) {
    const result = { value: null, error: broken ?? null };
    try {
      if (!broken) result.value = JSON.parse(await pyodide.runPythonAsync(code));
    } catch (error) {
      result.error = String(error.message ?? error);
    }
    result.said = said.splice(0);
    await fetch(`/result?id=${id}`, { method: "POST", body: JSON.stringify(result) });
  }
}
