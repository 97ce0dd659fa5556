package main

// docHead begins docs/cli.md.
const docHead = `# The command pglocker

<!-- Made from the commands themselves: run "make cli-docs" after a change of cmd/pglocker. -->

For those who have a shell and no Go compiler: look at locks, care for them, and run programs under them.

    go install github.com/ismurov/pglocker/cmd/pglocker@latest

- ` + "`pglocker COMMAND --help`" + ` says what is on this page. ` + "`pglocker man FOLDER`" + ` writes it as manual pages, and
  ` + "`pglocker completion SHELL`" + ` prints the completion of commands, flags and lock ids for bash, zsh, fish and PowerShell.
- Errors and remarks go to the standard error, what was asked for to the standard output.
- Times are UTC, by the database's clock. A duration is ` + "`90d`, `36h`, `1d12h` or `1m30s`" + `.
- Colours are for terminals, unless NO_COLOR is set or TERM is ` + "`dumb`" + `.
- Ctrl-C ends every command at any time, and leaves nothing held. Where the database doesn't answer, it says
  what may stay held, and until when. What ` + "`hold`" + ` leaves held by HUP and with --detach ends with its lease.

## JSON

` + "`-o json`" + ` prints JSON: an object, or for a list an array with a line for each element. Fields keep their names and
meanings; new ones may come. What isn't known is ` + "`null`" + `. Times are RFC 3339, and durations are numbers of seconds in
fields that end in ` + "`_seconds`" + `. If the exit code isn't 0, what was printed may be incomplete.

## Connection

It connects as psql does. ` + "`-d`" + ` takes a URL, a conninfo string, or the name of a database. What it leaves out
comes from the service file and the environment. Never write a password on a command line, where other users of the
machine can read it: use ` + "`~/.pgpass`" + `.

    export PGHOST=db1,db2 PGDATABASE=app PGUSER=oncall PGTARGETSESSIONATTRS=read-write
    pglocker ls --held
    pglocker ls --held -d service=app

| of libpq | |
|---|---|
| obeyed | PGHOST, PGPORT, PGDATABASE, PGUSER, PGPASSWORD, PGPASSFILE, PGSERVICE, PGSERVICEFILE, PGOPTIONS, PGAPPNAME, PGTZ, PGCONNECT_TIMEOUT, PGTARGETSESSIONATTRS, PGSSLMODE, PGSSLNEGOTIATION, PGSSLCERT, PGSSLKEY, PGSSLPASSWORD, PGSSLCERTMODE, PGSSLROOTCERT, PGSSLSNI, PGMINPROTOCOLVERSION, PGMAXPROTOCOLVERSION, PGCHANNELBINDING, PGREQUIREAUTH, and the same as keywords |
| refused with an error | PGHOSTADDR, PGREQUIREPEER, PGSSLCRL, PGSSLCRLDIR, PGSSLMINPROTOCOLVERSION, PGSSLMAXPROTOCOLVERSION, PGGSSENCMODE=require, and the same as keywords; the keywords replication, scram_client_key, scram_server_key and oauth_* |
| ignored | PGGSSENCMODE otherwise, PGGSSLIB, PGGSSDELEGATION, PGKRBSRVNAME, PGLOADBALANCEHOSTS, PGSSLCOMPRESSION, PGREQUIRESSL, PGCLIENTENCODING, PGDATESTYLE, PGGEQO, PGSYSCONFDIR, PGLOCALEDIR; the keywords keepalives*, tcp_user_timeout and sslkeylogfile |

It differs from psql in these points too:

- It never asks for a password.
- It doesn't read the service file of the system, nor ` + "`~/.postgresql/root.crl`" + `.
- Kerberos and OAuth aren't supported.
- Several hosts have one password: that of the first in ` + "`~/.pgpass`" + `.
- Without ` + "`connect_timeout`" + ` it gives up on a server after 10 seconds.
- The client_encoding is always UTF8. The application name is ` + "`pglocker COMMAND`" + ` unless you set another.

Poolers in transaction mode work.
`
