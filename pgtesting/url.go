package pgtesting

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// parseURL accepts the addresses of which the database can be exchanged.
func parseURL(connURL string) (*url.URL, error) {
	u, err := url.Parse(connURL)
	if err != nil {
		// url.Parse's own error would print the password.
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

// withDatabase returns u for another database. Path is the bare name; String
// puts the slash between host and path. Without a host (the socket's folder is in
// the query then) it would not, so there String is told by Opaque what to write.
func withDatabase(u *url.URL, name string) *url.URL {
	other := *u
	other.Path = name
	other.RawPath = ""
	// pgx lets these win over the path. The rest stays as it is written: drivers
	// don't agree on what a plus sign means, which Query and Encode would put in.
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
