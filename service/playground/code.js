/** The edit that the page would send, as curl and as Python. */
import { hasKey } from "./api.js";
import { byId, press } from "./dom.js";
import { fields } from "./request.js";
import { state, watch } from "./store.js";

/** @typedef {import("./request.js").Field} Field */
let language = "curl";

/** For a POSIX shell. @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** A file's name inside curl's -F. @param {string} name */
const named = (name) => `"${name.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;

/** @param {Field[]} list */
function curl(list) {
  const lines = [`curl -sS ${location.origin}/v1/edits`, "-H 'Prefer: wait=60'"];
  if (hasKey()) lines.push('-H "Authorization: Bearer $FOI_KEY"');
  for (const field of list) {
    if ("blob" in field) lines.push(`-F ${quoted(`${field.name}=@${named(field.file)}`)}`);
    else lines.push(`--form-string ${quoted(`${field.name}=${field.value}`)}`);
  }
  return lines.join(" \\\n  ");
}

/** @param {Field[]} list */
function python(list) {
  const text = JSON.stringify;
  const files = list
    .filter((field) => "blob" in field)
    .map((field) => `    ${text(field.name)}: open(${text(field.file)}, "rb"),`);
  const data = list
    .filter((field) => "value" in field)
    .map((field) => `    ${text(field.name)}: ${text(field.value)},`);
  const key = hasKey() ? ', "Authorization": f"Bearer {os.environ[\'FOI_KEY\']}"' : "";
  return [
    ...(key ? ["import os"] : []),
    "import httpx",
    "",
    "files = {",
    ...files,
    "}",
    "data = {",
    ...data,
    "}",
    `headers = {"Prefer": "wait=60"${key}}`,
    `client = httpx.Client(base_url=${text(location.origin)}, timeout=90)`,
    'edit = client.post("/v1/edits", files=files, data=data, headers=headers).raise_for_status().json()',
    'open("result.png", "wb").write(client.get(edit["outputs"][0]["url"]' +
      (key ? ", headers=headers" : "") +
      ").content)",
  ].join("\n");
}

async function update() {
  press({ curl: "code-curl", python: "code-python" }, language);
  if (!byId("code-section").open) return;
  const list = await fields("edit");
  byId("code").textContent = language === "curl" ? curl(list) : python(list);
}

async function copy() {
  const code = byId("code");
  if (!navigator.clipboard) {
    getSelection().selectAllChildren(code); // a page without https may not write there: Ctrl+C will
    return;
  }
  await navigator.clipboard.writeText(code.textContent);
  byId("copy").textContent = "Copied";
  setTimeout(() => (byId("copy").textContent = "Copy"), 1500);
}

export function startCode() {
  for (const name of ["curl", "python"]) {
    byId(`code-${name}`).addEventListener("click", () => {
      language = name;
      void update();
    });
  }
  byId("copy").addEventListener("click", copy);
  byId("code-section").addEventListener("toggle", update);
  watch(["picture", "parts", "settings", "text"], update);
}
