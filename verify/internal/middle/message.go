package middle

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
)

// request is what a client sends before it waits, up to a Sync or a simple query.
type request struct {
	all  []byte
	last byte
	// changes: it executes a statement that changes locks.
	changes bool
	// changing are the prepared statements of the session that do.
	changing map[string]bool
}

func (r *request) add(message []byte) {
	r.all, r.last = append(r.all, message...), message[0]
	body := message[head:]

	switch message[0] {
	case 'Q':
		r.changes = r.changes || changesLocks(body)
	case 'P':
		name, text := cutText(body)
		r.changing[name] = changesLocks(text)
	case 'B':
		_, rest := cutText(body) // the portal
		name, _ := cutText(rest)
		r.changes = r.changes || r.changing[name]
	}
}

// complete: the server answers to that.
func (r *request) complete() bool { return !slices.Contains([]byte("PBDEC"), r.last) }

func (r *request) clear() { r.all, r.changes = nil, false }

func cutText(body []byte) (text string, rest []byte) {
	before, after, _ := bytes.Cut(body, []byte{0})

	return string(before), after
}

// changesLocks reports whether a statement changes rows of a table of locks.
func changesLocks(text []byte) bool {
	return bytes.Contains(text, []byte("lock_statuses")) &&
		(bytes.Contains(text, []byte("UPDATE ")) || bytes.Contains(text, []byte("INSERT ")))
}

// reply is what a server sends until it is ready for the next request.
type reply struct {
	// all is everything, rows what comes before the word that a statement is done.
	all, rows []byte
	// changed: a statement changed rows, or a transaction was committed.
	changed bool
}

func (r *reply) add(message []byte) {
	r.all = append(r.all, message...)

	if message[0] != 'C' {
		r.rows = append(r.rows, message...)

		return
	}

	tag, _ := cutText(message[head:])
	verb, counts, _ := strings.Cut(tag, " ")

	switch verb {
	case "COMMIT":
		r.changed = true
	case "UPDATE", "INSERT", "SELECT": // a query with one of the others in it says SELECT
		r.changed = r.changed || strings.TrimLeft(counts, "0 ") != ""
	}
}

func (r *reply) clear() { *r = reply{} }

// replaced is the error in the place of the reply.
func (r *reply) replaced(f Forgery) []byte {
	var fields []byte
	for _, field := range []string{"S" + f.Severity, "V" + f.Severity, "C" + f.Code, "Mthe connection to the server was lost"} {
		fields = append(append(fields, field...), 0)
	}

	message := binary.BigEndian.AppendUint32([]byte{'E'}, uint32(4+len(fields)+1))
	message = append(append(message, fields...), 0)

	if f.Rows {
		return append(r.rows, message...)
	}

	return message
}

// protocol is that of a session. Other first messages ask for something else: to cancel a
// statement, or for encryption.
const protocol = 3

func asksForSession(first []byte) bool {
	return len(first) > 2*headOfFirst && binary.BigEndian.Uint16(first[headOfFirst:]) == protocol
}

// readOnly makes the session that the message asks for one whose transactions only read.
func readOnly(first []byte) []byte {
	changed := append(slices.Clone(first[:len(first)-1]), "default_transaction_read_only\x00on\x00\x00"...)
	binary.BigEndian.PutUint32(changed, uint32(len(changed)))

	return changed
}
