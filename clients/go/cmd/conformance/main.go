// Command conformance runs the cases of tests/conformance against a broker, prints a line for each, and fails if one does.
//
// EVENTBROKER_URL is the broker; EVENTBROKER_CONTROL the port of whoever can restart it, without which the cases that need
// it are left out; EVENTBROKER_CASES the directory of the cases. Arguments choose the cases whose name contains one.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"eventbroker.io/eventbroker"
)

const (
	sideBySide = 8
	mostOfCase = 120 * time.Second
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(wanted []string) error {
	directory := os.Getenv("EVENTBROKER_CASES")
	if directory == "" {
		directory = "../../tests/conformance/cases" // from clients/go
	}
	cases, err := load(directory)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	client, err := eventbroker.Connect(ctx, os.Getenv("EVENTBROKER_URL"))
	if err != nil {
		return err
	}
	defer client.Close()
	control := os.Getenv("EVENTBROKER_CONTROL")

	var results tally
	var running sync.WaitGroup
	slots := make(chan struct{}, sideBySide)
	var disturbing []Case // one after the other, when nobody is disturbed
	for _, each := range cases {
		switch {
		case !each.wanted(wanted):
		case each.NeedsControl && control == "":
			results.say("left out", each, nil)
		case each.NeedsControl:
			disturbing = append(disturbing, each)
		default:
			slots <- struct{}{}
			running.Go(func() {
				results.add(each, each.run(client, control))
				<-slots
			})
		}
	}
	running.Wait()
	for _, each := range disturbing {
		results.add(each, each.run(client, control))
	}
	fmt.Printf("%d passed, %d failed\n", results.passed, results.failed)
	if results.failed > 0 || results.passed == 0 {
		return fmt.Errorf("not conformant")
	}
	return nil
}

func (c Case) wanted(names []string) bool {
	for _, name := range names {
		if strings.Contains(c.Name, name) {
			return true
		}
	}
	return len(names) == 0
}

type tally struct {
	lock           sync.Mutex
	passed, failed int
}

func (t *tally) add(c Case, err error) {
	t.lock.Lock()
	defer t.lock.Unlock()
	if err != nil {
		t.failed++
		t.say("FAILED", c, err)
	} else {
		t.passed++
		t.say("ok", c, nil)
	}
}

func (t *tally) say(what string, c Case, err error) {
	line := fmt.Sprintf("%-8s %s: %s", what, c.file, c.Name)
	if err != nil {
		line += ": " + strings.ReplaceAll(err.Error(), "\n", " ")
	}
	fmt.Println(line)
}
