// How takes come in: dropped anywhere, chosen, pasted.

import { byId } from "./dom.js";

const AUDIO = /\.(wav|wave|flac|aif|aiff|aifc|caf|mp3|ogg|oga|opus|m4a|mp4|aac|webm|w64|rf64|au)$/i;

/** `files(list)` gets audio files, `address(text)` a pasted web address, `refused(names)` what is no audio. */
export function listenForTakes({ files, address, refused }) {
  const give = (list) => {
    const all = [...list];
    const audio = all.filter(
      (file) => file.type.startsWith("audio/") || file.type.startsWith("video/") || AUDIO.test(file.name),
    );
    const rest = all.filter((file) => !audio.includes(file));
    if (audio.length) files(audio);
    if (rest.length) refused(rest.map((file) => file.name));
  };
  const veil = byId("drop");
  const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let depth = 0;
  document.addEventListener("dragenter", (event) => {
    if (!carriesFiles(event)) return;
    depth += 1;
    veil.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (!carriesFiles(event)) return;
    depth -= 1;
    if (depth <= 0) veil.hidden = true;
  });
  document.addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
  document.addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    depth = 0;
    veil.hidden = true;
    give(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) {
      event.preventDefault();
      return give(event.clipboardData.files);
    }
    if (event.target.closest?.("input, textarea") || document.querySelector("dialog[open]")) return;
    const text = event.clipboardData.getData("text").trim();
    if (/^https?:\/\/\S+$/.test(text)) address(text);
  });
  const picker = byId("files");
  picker.addEventListener("change", () => {
    give(picker.files);
    picker.value = "";
  });
  return () => picker.click();
}
