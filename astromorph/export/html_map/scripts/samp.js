// Sending tables to TOPCAT, Aladin and other programs: a client of the SAMP Web Profile
// (SAMP 1.3, section 5). The hub of these programs listens on this machine only, and asks
// its user before it accepts a page.
//
// sendTable(name, votableText)   a promise of the number of programs that were notified;
//                                fails with an Error whose message says what to do

const sendTable = (() => {
  const HUB = "http://localhost:21012/", LOAD_TABLE = "table.load.votable";

  const escapeXml = (text) => text.replace(/[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\u{10000}-\u{10ffff}]/gu, " ")
    .replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  // SAMP has only texts, lists and maps.
  function encode(value) {
    if (typeof value === "string") return `<value><string>${escapeXml(value)}</string></value>`;
    const members = Object.entries(value).map(([name, member]) =>
      `<member><name>${escapeXml(name)}</name>${encode(member)}</member>`);
    return `<value><struct>${members.join("")}</struct></value>`;
  }

  function decode(value) {
    const typed = value.firstElementChild;
    if (typed === null) return value.textContent;
    if (typed.tagName === "struct") {
      return Object.fromEntries([...typed.children].map((member) => {
        const [name, content] = member.children;
        return [name.textContent, decode(content)];
      }));
    }
    if (typed.tagName === "array") return [...typed.firstElementChild.children].map(decode);
    return typed.textContent;
  }

  async function call(method, ...parameters) {
    const body = `<?xml version="1.0"?><methodCall><methodName>samp.webhub.${method}</methodName><params>` +
      `${parameters.map((value) => `<param>${encode(value)}</param>`).join("")}</params></methodCall>`;
    let text;
    try {
      const answer = await fetch(HUB, { method: "POST", body, headers: { "Content-Type": "text/xml" }, credentials: "omit" });
      text = await answer.text();
    } catch {
      throw new Error("No program accepts tables from this page: start TOPCAT or Aladin on this computer, and send again.");
    }
    const answer = new DOMParser().parseFromString(text, "text/xml");
    const fault = answer.querySelector("methodResponse > fault > value");
    if (fault) throw new Error(`The program has refused: ${decode(fault).faultString}`);
    const value = answer.querySelector("methodResponse > params > param > value");
    if (!value) throw new Error("What answers on port 21012 of this computer is not a SAMP hub.");
    return decode(value);
  }

  function dataUrl(text) {
    const bytes = new TextEncoder().encode(text), parts = [];
    for (let k = 0; k < bytes.length; k += 8192) parts.push(String.fromCharCode(...bytes.subarray(k, k + 8192)));
    return `data:application/x-votable+xml;base64,${btoa(parts.join(""))}`;
  }

  return async (name, votableText) => {
    const key = (await call("register", { "samp.name": "astromorph map" }))["samp.private-key"];
    try {
      const programs = Object.keys(await call("getSubscribedClients", key, LOAD_TABLE)).length;
      if (!programs) throw new Error("No running program loads tables: start TOPCAT or Aladin, and send again.");
      await call("notifyAll", key, { "samp.mtype": LOAD_TABLE,
        "samp.params": { url: dataUrl(votableText), name, "table-id": `${name} ${Date.now()}` } });
      return programs;
    } finally {
      await call("unregister", key).catch(() => {});
    }
  };
})();
