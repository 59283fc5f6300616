// Serves hoodiecrow with a store for each user: its own has one for all.
//
// node server.js PORT TLS_PORT PASSWORD USER...
const fs = require("fs");
const hoodiecrow = require("hoodiecrow-imap");

const [port, tlsPort, password, ...names] = process.argv.slice(2);
const plugins = ["ID", "STARTTLS", "AUTH-PLAIN", "SASL-IR", "UIDPLUS", "MOVE", "UNSELECT", "NAMESPACE", "IDLE", "LITERALPLUS", "ENABLE", "CONDSTORE"];

const stores = {};
for (const name of names) {
	stores[name] = hoodiecrow({ plugins, storage: { INBOX: { messages: [] }, "": { folders: { Trash: {} } } } });
}

// A connection belongs to the server that listens until it is authenticated,
// then to the one with the user's store.
function assign(connection) {
	const front = connection.server;
	let name, state = connection.state;
	const users = {};
	for (const n of names) {
		users[n] = { get password() { name = n; return password; } };
	}
	connection.server = Object.create(front, { users: { value: users } });
	Object.defineProperty(connection, "state", {
		get: () => state,
		set: (next) => {
			if (next === "Authenticated" && state === "Not Authenticated") {
				front.removeListener("notify", connection._notificationCallback);
				connection.server = stores[name];
				connection.server.on("notify", connection._notificationCallback);
			}
			state = next;
		},
	});
}

const credentials = { key: fs.readFileSync("key.pem"), cert: fs.readFileSync("cert.pem") };
for (const [at, secureConnection] of [[port, false], [tlsPort, true]]) {
	const front = hoodiecrow({ plugins: plugins.filter((p) => !secureConnection || p !== "STARTTLS"), credentials, secureConnection });
	front.connectionHandlers.push(assign);
	front.listen(Number(at), "127.0.0.1");
}

// A mistake in one session must not end those of others.
process.on("uncaughtException", (error) => console.error(error));
