// The page works without this script. With it, the page follows the changes of the table: it gets its changing part
// anew whenever that has changed, as HTML that the server has escaped, and changes only what differs. So focus,
// selection and scrolling stay.
"use strict";

(() => {
	document.documentElement.classList.add("script");

	const view = document.getElementById("view");
	if (!view || !window.EventSource) {
		return;
	}

	const live = document.getElementById("live");
	const liveText = document.getElementById("live-text");
	const say = document.getElementById("say");
	const still = window.matchMedia("(prefers-reduced-motion: reduce)");

	// The database's clock less this one, in milliseconds.
	let offset = 0;
	const clock = (now) => now > 0 && (offset = now - Date.now());
	let source, retry, state, failed;

	function duration(ms) {
		const s = Math.floor(ms / 1000), two = (n, unit, m, less) => `${n} ${unit} ${m} ${less}`;

		if (ms < 1000) return `${Math.max(Math.floor(ms), 0)} ms`;
		if (s < 60) return `${s} s`;
		if (s < 3600) return two(Math.floor(s / 60), "min", s % 60, "s");
		if (s < 86400) return two(Math.floor(s / 3600), "h", Math.floor(s / 60) % 60, "min");

		return two(Math.floor(s / 86400), "d", Math.floor(s / 3600) % 24, "h");
	}

	// count writes how long ago each time was.
	function count() {
		const now = Date.now() + offset;

		for (const element of view.querySelectorAll("[data-at]")) {
			const ms = now - Number(element.dataset.at);
			const text = Math.abs(ms) < 1000 ? "now" : ms < 0 ? `in ${duration(-ms)}` : `${duration(ms)} ago`;

			if (element.textContent !== text) {
				element.textContent = text;
			}
		}
	}

	function alike(a, b) {
		return a.nodeType === b.nodeType && a.nodeName === b.nodeName &&
			(a.nodeType !== Node.ELEMENT_NODE || a.getAttribute("data-key") === b.getAttribute("data-key"));
	}

	function flash(element) {
		if (!still.matches && element.animate) {
			const colour = getComputedStyle(document.documentElement).getPropertyValue("--waits-bg");
			element.animate([{ backgroundColor: colour }, { backgroundColor: "transparent" }], { duration: 1600 });
		}
	}

	// update makes an element like another.
	function update(old, fresh) {
		if (old.nodeType !== Node.ELEMENT_NODE) {
			if (old.nodeValue !== fresh.nodeValue) {
				old.nodeValue = fresh.nodeValue;
			}

			return;
		}

		for (const { name } of [...old.attributes]) {
			if (!fresh.hasAttribute(name)) {
				old.removeAttribute(name);
			}
		}

		const changed = old.dataset.token !== fresh.dataset.token;

		for (const { name, value } of fresh.attributes) {
			if (old.getAttribute(name) !== value) {
				old.setAttribute(name, value);
			}
		}

		if (!old.hasAttribute("data-at")) { // count writes its text
			children(old, fresh);
		}

		if (changed) {
			flash(old);
		}
	}

	// children makes the content of an element like that of another. Elements with keys are moved, not made anew.
	function children(old, fresh) {
		const keyed = new Map();

		for (const child of old.children) {
			const key = child.getAttribute("data-key");
			if (key !== null) {
				keyed.set(key, child);
			}
		}

		let next = old.firstChild;

		for (const child of [...fresh.childNodes]) {
			const key = child.nodeType === Node.ELEMENT_NODE ? child.getAttribute("data-key") : null;
			let match = key !== null ? keyed.get(key) : next;

			if (!match || !alike(match, child)) {
				old.insertBefore(child, next);

				continue;
			}

			keyed.delete(key);

			if (match === next) {
				next = next.nextSibling;
			} else {
				old.insertBefore(match, next);
			}

			update(match, child);
		}

		while (next) {
			const after = next.nextSibling;
			next.remove();
			next = after;
		}
	}

	function show(html) {
		const focused = document.activeElement;
		const before = document.getElementById("lock-state")?.dataset.say;
		const fresh = new DOMParser().parseFromString(`<div>${html}</div>`, "text/html").body.firstChild;

		children(view, fresh);

		if (focused && focused !== document.activeElement && view.contains(focused)) {
			focused.focus({ preventScroll: true });
		}

		const after = document.getElementById("lock-state");
		if (before && after && after.dataset.say !== before) {
			announce(`${after.textContent.trim()}, ${view.querySelector(".facts")?.firstElementChild.textContent.trim()}`);
		}
	}

	let told = 0;

	// announce has a screen reader say something, once in three seconds at most.
	function announce(text) {
		if (Date.now() - told > 3000) {
			told = Date.now();
			say.textContent = text;
		}
	}

	function is(now) {
		const text = { live: "Live", failed: "The database doesn't answer", waiting: "Connecting", hidden: "Paused" }[now];

		if (now === "failed" && !failed) {
			announce(text);
		} else if (now === "live" && failed) {
			announce("The database answers again");
		}

		failed = now === "failed" || failed && now !== "live";

		if (state !== now) {
			state = now;
			live.dataset.state = now;
			liveText.textContent = text;
		}
	}

	function open() {
		clearTimeout(retry);

		if (source || document.hidden) {
			return;
		}

		is("waiting");

		source = new EventSource(view.dataset.events);

		source.onmessage = (event) => {
			const news = JSON.parse(event.data);

			clock(news.now);

			if (news.html) {
				show(news.html);
			}

			is(news.failed ? "failed" : "live");
			count();
		};

		source.onerror = () => {
			is("waiting");

			// The browser tries again by itself after a lost connection, not after a refusal.
			if (source && source.readyState === EventSource.CLOSED) {
				source = null;
				retry = setTimeout(open, 5000);
			}
		};
	}

	function shut() {
		clearTimeout(retry);
		source?.close();
		source = null;
	}

	// A page that nobody sees isn't read.
	document.addEventListener("visibilitychange", () => {
		if (document.hidden) {
			shut();
			is("hidden");
		} else {
			open();
		}
	});

	// A page that the browser keeps for the way back has no stream.
	window.addEventListener("pagehide", shut);
	window.addEventListener("pageshow", open);

	clock(Number(view.dataset.now));
	setInterval(count, 1000);
	count();
	open();
})();
