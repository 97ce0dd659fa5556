package ui

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ismurov/pglocker"
)

const (
	// reasonBytes is how long the reason of a release may be.
	reasonBytes = 500
	// releaseFor is how long a release may take. It goes on if the viewer leaves.
	releaseFor = 10 * time.Second
)

// releaseForm is the page that asks for the reason of a release by force.
type releaseForm struct {
	ID     string
	Token  int64
	Reason string
	Holder string
	Held   bool
	Since  time.Time
	Back   string
	Error  string
}

func releaseURL(id string, token int64) string {
	return withValues("release", url.Values{"id": {id}, "token": {strconv.FormatInt(token, 10)}})
}

func number(text string) int64 {
	n, _ := strconv.ParseInt(text, 10, 64)

	return n
}

// crossOrigin refuses requests that another site has a browser send, by what all browsers say of a request's
// origin.
var crossOrigin = http.NewCrossOriginProtection()

// sameOrigin reports whether a request that changes something comes from a page of this handler. A request that
// doesn't say where it comes from is no browser's of this decade: it isn't trusted either.
func sameOrigin(r *http.Request) bool {
	return crossOrigin.Check(r) == nil && (r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "")
}

// askRelease asks for a reason.
func (h *Handler) askRelease(w http.ResponseWriter, r *http.Request) {
	form := &releaseForm{ID: r.URL.Query().Get("id"), Token: number(r.URL.Query().Get("token"))}
	h.sendForm(w, r, http.StatusOK, form)
}

// release releases a lock by force.
func (h *Handler) release(w http.ResponseWriter, r *http.Request) {
	if !sameOrigin(r) {
		h.options.Logger.Warn("pglocker: a release by force was refused: the request came from another site",
			"origin", r.Header.Get("Origin"), "site", r.Header.Get("Sec-Fetch-Site"), "host", r.Host)
		h.fail(w, http.StatusForbidden, "This request came from another site. Nothing was done.")

		return
	}

	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	if err := r.ParseForm(); err != nil {
		h.fail(w, http.StatusBadRequest, "This form can't be read.")

		return
	}

	form := &releaseForm{
		ID: r.PostForm.Get("id"), Token: number(r.PostForm.Get("token")), Reason: strings.TrimSpace(r.PostForm.Get("reason")),
	}

	switch {
	case form.Reason == "":
		form.Error = "Give a reason. The history keeps it."
	case len(form.Reason) > reasonBytes:
		form.Error = "The reason is too long: " + strconv.Itoa(reasonBytes) + " bytes at most."
	case !utf8.ValidString(form.Reason) || strings.ContainsRune(form.Reason, 0):
		form.Error = "The reason isn't text."
	}

	if form.Error != "" {
		h.sendForm(w, r, http.StatusBadRequest, form)

		return
	}

	reason := form.Reason
	if h.options.User != nil {
		if user := h.options.User(r); user != "" {
			reason += " (by " + user + ")"
		}
	}

	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), releaseFor)
	defer cancel()

	if err := h.locker.ForceRelease(ctx, form.ID, form.Token, reason); err != nil {
		status, text := releaseFailure(err)
		h.options.Logger.Warn("pglocker: a lock was not released by force", "lock", form.ID, "token", form.Token,
			"reason", reason, "error", err)

		form.Error = text
		h.sendForm(w, r, status, form)

		return
	}

	// Relative: the handler doesn't know its prefix.
	w.Header().Set("Location", withValues("lock", url.Values{"id": {form.ID}, "freed": {strconv.FormatInt(form.Token, 10)}}))
	w.WriteHeader(http.StatusSeeOther)
}

func releaseFailure(err error) (status int, text string) {
	switch {
	case errors.Is(err, pglocker.ErrWrongGeneration):
		return http.StatusConflict, "The lock has changed hands since you looked. Nothing was done. Look again."
	case errors.Is(err, pglocker.ErrLockNotFound):
		return http.StatusNotFound, "There is no such lock."
	case errors.Is(err, pglocker.ErrUnknownOutcome):
		return http.StatusBadGateway, "The database's answer was lost: the lock may be released or not. Look again."
	case errors.Is(err, pglocker.ErrInvalidLockID), errors.Is(err, pglocker.ErrReservedLockID):
		return http.StatusBadRequest, "This row can't be released."
	case errors.Is(err, pglocker.ErrPermissionDenied):
		return http.StatusForbidden, "The role of this page may not release locks. It needs UPDATE on the table."
	default:
		return http.StatusServiceUnavailable, failure(err) + " Nothing was done."
	}
}

// sendForm sends the page that asks for the reason, with the lock as it is now.
func (h *Handler) sendForm(w http.ResponseWriter, r *http.Request, status int, form *releaseForm) {
	ctx, cancel := context.WithTimeout(r.Context(), askFor)
	defer cancel()

	form.Back = lockURL(form.ID)

	now, err := h.locker.DatabaseTime(ctx)
	if err == nil {
		var lock *pglocker.LockStatus

		if lock, err = h.locker.GetLockStatus(ctx, form.ID); err == nil {
			form.Held = lock.Generation == form.Token && lock.HeldAt(now)
			form.Holder, form.Since = lock.Owner, lock.AcquiredAt
		}
	}

	if err != nil && form.Error == "" {
		status, form.Error = releaseFailure(err)
	}

	if !form.Held && form.Error == "" {
		form.Error = "The lock isn't held under this token any more. There is nothing to release."
	}

	f := h.frame(query{})
	f.Heading, f.Title, f.ID, f.Form = "Release by force", "Release by force", form.ID, form
	h.send(w, status, f)
}
