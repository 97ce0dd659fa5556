package top

import "charm.land/lipgloss/v2"

// The 16 colours of the terminal's own palette are used, so the view fits a light screen as a dark one. Nothing is
// said by a colour alone: without colours all can still be read.
var (
	badge    = lipgloss.NewStyle().Bold(true).Reverse(true).Foreground(lipgloss.Cyan)
	bold     = lipgloss.NewStyle().Bold(true)
	faint    = lipgloss.NewStyle().Faint(true)
	heading  = lipgloss.NewStyle().Foreground(lipgloss.Cyan).Bold(true)
	good     = lipgloss.NewStyle().Foreground(lipgloss.Green)
	warn     = lipgloss.NewStyle().Foreground(lipgloss.Yellow).Bold(true)
	bad      = lipgloss.NewStyle().Foreground(lipgloss.Red).Bold(true)
	selected = lipgloss.NewStyle().Reverse(true)
)
