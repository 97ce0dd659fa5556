// Package child runs a command under supervision, for as long as a context lasts.
//
//	terminal, kill ---> Supervisor ---> the command's process group ---> those that left the group
//
// The command is a process group of its own. It has the standard files of this process, and no other
// descriptor that this process has opened.
//
// Signals. From New to Close the Supervisor has the signals of this process. While a command runs, it gets
// them: TERM, INT, HUP, QUIT, USR1, USR2, WINCH, TSTP and CONT. A command that is stopped is continued by the first
// four, or it wouldn't end. Otherwise TERM, INT, HUP and QUIT end the
// Supervisor's context, TSTP stops this process, and the others do nothing. HUP and INT that were ignored when
// this process began, as under nohup, stay ignored, here and by the command.
//
// The terminal. If this process is in the terminal's foreground, and its standard input and output are the
// terminal, the command's group becomes the foreground (Command.Foreground). In a pipeline, whose other
// programs may want the terminal too, it does when it asks: when it stops because it reads or changes the
// terminal. Ctrl-Z stops the command, and then this process, so that the
// shell sees a stopped job. A stopped process renews no lease: when the job is continued, the context of the
// lock may have ended. Where no shell is left to continue it, the system doesn't stop this process: a command that
// wants the terminal of such a job is ended, or it would stay stopped for ever, under a lease that is renewed. So
// would a stopped command whose terminal has gone: on Linux it gets HUP and CONT.
//
// The end. When the context ends, the command and all its descendants get TERM and CONT, and after the grace
// KILL, until none is left.
//
//	system   descendants that left the group          if this process is killed by SIGKILL
//	Linux    are adopted (a child subreaper), found   the command is killed too, not its descendants
//	         in /proc, and get the same signals       (PR_SET_PDEATHSIG)
//	Unix     get no signal                            the command runs on
//	others   get no signal; the command gets no       the command runs on
//	         TERM, but is killed at once
//
// A command that ends by itself may leave processes behind. They run on.
package child
