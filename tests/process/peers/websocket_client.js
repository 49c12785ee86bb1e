// Talks to an echo server at the URL given, and prints what it has seen.
const { randomBytes } = require("node:crypto");
const WebSocket = require("ws");

const url = process.argv[2];
const data = randomBytes(1 << 20);

function fail(error) {
  console.error(error);
  process.exit(1);
}

const first = new WebSocket(url, { handshakeTimeout: 20000 });
let step = 0;
first.on("error", fail);
first.on("open", () => first.send("grüße"));
first.on("message", (message, isBinary) => {
  step += 1;
  if (step === 1) {
    if (isBinary || message.toString() !== "grüße") fail("the text came back changed");
    console.log("text");
    first.send(data);
  } else {
    if (!isBinary || !message.equals(data)) fail("the bytes came back changed");
    console.log("binary");
    first.ping("are you there");
  }
});
first.on("pong", (payload) => {
  if (payload.toString() !== "are you there") fail("the ping came back changed");
  console.log("ping");
  first.close(4001, "enough");
});
first.on("close", () => {
  const second = new WebSocket(url, { handshakeTimeout: 20000 });
  second.on("error", fail);
  second.on("open", () => second.send("close 4002"));
  second.on("close", (code, reason) => console.log(`closed ${code} ${reason}`));
});
