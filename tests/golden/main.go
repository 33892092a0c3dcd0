// Command keyferry-golden renders the golden template cases with Go's own
// text/template and sprig. Its output is what Keyferry's engine must produce.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"
)

func main() {
	// Dates are rendered in a container without a time zone.
	time.Local = time.UTC
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: keyferry-golden write | check | names | bench N")
	}
	areas, err := loadAreas()
	if err != nil {
		return err
	}
	switch args[0] {
	case "write":
		return write(areas)
	case "check":
		return check(areas)
	case "names":
		names(areas)
		return nil
	case "bench":
		if len(args) < 2 {
			return fmt.Errorf("usage: keyferry-golden bench N")
		}
		rounds, err := strconv.Atoi(args[1])
		if err != nil || rounds < 1 {
			return fmt.Errorf("bench: %q is not a positive number", args[1])
		}
		return bench(areas, rounds)
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// write renders every area and stores the results.
func write(areas []area) error {
	for _, a := range areas {
		if err := storeResults(a.name, a.render()); err != nil {
			return err
		}
	}
	return nil
}

// check renders every area twice, and compares both runs and the stored results.
func check(areas []area) error {
	differences := 0
	report := func(format string, args ...any) {
		differences++
		fmt.Printf(format+"\n", args...)
	}
	total := 0
	for _, a := range areas {
		stored, err := loadResults(a.name)
		if err != nil {
			report("%s: %v", a.name, err)
			continue
		}
		first, second := a.render(), a.render()
		if len(stored) != len(first) {
			report("%s: %d results stored for %d cases", a.name, len(stored), len(first))
			continue
		}
		for i := range first {
			total++
			if first[i] != second[i] {
				report("%s[%d]: not deterministic: %s", a.name, i, a.cases[i].Template)
			} else if first[i] != stored[i] {
				was, _ := json.Marshal(stored[i])
				is, _ := json.Marshal(first[i])
				report("%s[%d]: stored %s, now %s: %s", a.name, i, was, is, a.cases[i].Template)
			}
		}
	}
	if differences > 0 {
		return fmt.Errorf("%d differences in %d cases", differences, total)
	}
	fmt.Printf("%d cases, no differences\n", total)
	return nil
}

// names prints how many cases each function appears in, fewest first.
func names(areas []area) {
	counts := map[string]int{}
	for name := range funcs {
		counts[name] = 0
	}
	for _, a := range areas {
		for _, c := range a.cases {
			for name := range c.functions() {
				counts[name]++
			}
		}
	}
	list := make([]string, 0, len(counts))
	for name := range counts {
		list = append(list, name)
	}
	slices.SortFunc(list, func(x, y string) int {
		if counts[x] != counts[y] {
			return counts[x] - counts[y]
		}
		if x < y {
			return -1
		}
		return 1
	})
	for _, name := range list {
		fmt.Println(counts[name], name)
	}
}

// bench renders every case that yields an output, and prints the mean per round.
func bench(areas []area, rounds int) error {
	cases := []testCase{}
	for _, a := range areas {
		if a.name == slowArea {
			continue
		}
		for i, r := range a.render() {
			if r.Error == "" {
				cases = append(cases, a.cases[i])
			}
		}
	}
	began := time.Now()
	for range rounds {
		for _, c := range cases {
			c.render()
		}
	}
	both := time.Since(began)

	parsed := make([]parsedCase, 0, len(cases))
	for _, c := range cases {
		p, err := c.parse()
		if err != nil {
			return err
		}
		parsed = append(parsed, p)
	}
	began = time.Now()
	for range rounds {
		for _, p := range parsed {
			_, _ = p.execute()
		}
	}
	executed := time.Since(began)
	return json.NewEncoder(os.Stdout).Encode(map[string]int64{
		"cases":                int64(len(cases)),
		"parse_and_execute_ns": both.Nanoseconds() / int64(rounds),
		"execute_ns":           executed.Nanoseconds() / int64(rounds),
	})
}
