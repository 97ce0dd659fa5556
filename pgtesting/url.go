package pgtesting

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// parseURL returns an error for an address that withDatabase can't change.
func parseURL(connURL string) (*url.URL, error) {
	u, err := url.Parse(connURL)
	if err != nil {
		// url.Parse's error has the password.
		if e := new(url.Error); errors.As(err, &e) {
			err = e.Err
		}
		return nil, fmt.Errorf("pgtesting: the database's address is no URL: %w", err)
	}
	switch {
	case u.Scheme != "postgres" && u.Scheme != "postgresql":
		return nil, errors.New("pgtesting: the database's address must be a URL, postgres://user:password@host:port/database; " +
			"key=value pairs and other schemes are not supported")
	case u.Opaque != "":
		return nil, errors.New("pgtesting: the database's address has no // after its scheme")
	}
	return u, nil
}

// withDatabase returns u for another database. Path is the bare name; String puts the slash
// between host and path. It does not if there is no host, as with a Unix socket: Opaque is what
// String writes then.
func withDatabase(u *url.URL, name string) *url.URL {
	other := *u
	other.Path = name
	other.RawPath = ""
	// In pgx these keys override the path. The rest stays as it is written: Encode would
	// write plus signs, whose meaning differs between drivers.
	if u.RawQuery != "" {
		pairs := slices.DeleteFunc(strings.Split(u.RawQuery, "&"), func(pair string) bool {
			key, _, _ := strings.Cut(pair, "=")
			return key == "dbname" || key == "database"
		})
		other.RawQuery = strings.Join(pairs, "&")
	}
	if u.Host == "" {
		other.Opaque = "///" + name
		if u.User != nil {
			other.Opaque = "//" + u.User.String() + "@/" + name
		}
	}
	return &other
}
