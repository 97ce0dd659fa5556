package store

import (
	"fmt"
	"strings"
)

// addHistoryTexts adds what the history sends and runs. A function's text is one by itself.
func addHistoryTexts(all map[string]string) {
	table := Table{Schema: "s", Name: "t"}
	s := &Store{table: table}

	for _, full := range []bool{false, true} {
		body := s.historyBody(full)
		all[fmt.Sprintf("history function, full %t", full)] = body

		for i, ddl := range s.historyDDL(full, true) {
			ddl = strings.Replace(ddl, quoteLiteral(body), "''", 1)
			all[fmt.Sprintf("history ddl %d, full %t", i, full)] = ddl
		}
	}

	all["history"] = onPrimary(sqlHistory)
	all["history start"] = historyText(table, sqlHistoryStart)
	all["history of one"] = historyText(table, sqlHistoryOf)
	all["history of all"] = historyText(table, sqlHistoryOfAll)
	all["history prune"] = historyText(table, sqlPruneHistory)
	all["holder at"] = historyText(table, sqlHolderAt)
}
