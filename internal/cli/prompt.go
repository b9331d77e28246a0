package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Prompter asks the user. It refuses to unless standard input is a terminal and there is one to show
// the question on: one that nobody sees must not be answered by what happens to be on standard input.
type Prompter struct {
	In, Out *os.File
	Context string // shown before the question, so that nobody deletes from the wrong system
}

// screen is where to show questions: Out, or the terminal itself when Out goes elsewhere; nil if there
// is nobody to ask.
func (p *Prompter) screen() *os.File {
	if !IsTerminal(p.In) {
		return nil
	}
	if IsTerminal(p.Out) {
		return p.Out
	}
	tty, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0)
	if err != nil {
		return nil
	}
	return tty // Left open: the process ends soon.
}

func (p *Prompter) prefix() string {
	if p.Context == "" {
		return "? "
	}
	return "[" + p.Context + "] ? "
}

// Confirm asks a question that an empty answer denies. A no is ErrCancelled.
func (p *Prompter) Confirm(ctx context.Context, question string) error {
	out := p.screen()
	if out == nil {
		e := Usagef("cannot ask for confirmation without a terminal")
		e.Hints = []string{"to go ahead without being asked: --force"}
		return e
	}
	in := bufio.NewReader(p.In)
	for {
		fmt.Fprintf(out, "%s%s (y/N) ", p.prefix(), question)
		answer, err := readLine(ctx, in)
		if err != nil {
			return err
		}
		switch strings.ToLower(answer) {
		case "y", "yes":
			return nil
		case "", "n", "no":
			return ErrCancelled
		}
		fmt.Fprintf(out, "X Sorry, your reply was invalid: %q is not a valid answer, please try again.\n", answer)
	}
}

// Select asks for one of several choices, by number or by name.
func (p *Prompter) Select(ctx context.Context, question string, choices []string) (string, error) {
	out := p.screen()
	if out == nil {
		return "", Usagef("cannot prompt for user input without a terminal")
	}
	for i, c := range choices {
		fmt.Fprintf(out, "%4d  %s\n", i+1, c)
	}
	in := bufio.NewReader(p.In)
	for {
		fmt.Fprintf(out, "%s%s (1-%d or a name) ", p.prefix(), question, len(choices))
		answer, err := readLine(ctx, in)
		if err != nil {
			return "", err
		}
		if n, err := strconv.Atoi(answer); err == nil && n >= 1 && n <= len(choices) {
			return choices[n-1], nil
		}
		for _, c := range choices {
			if c == answer {
				return c, nil
			}
		}
		fmt.Fprintf(out, "X Sorry, your reply was invalid: %q is not one of them, please try again.\n", answer)
	}
}

// readLine reads a line. End of input before one is a no: the terminal went away, or Ctrl-D.
func readLine(ctx context.Context, in *bufio.Reader) (string, error) {
	type result struct {
		line string
		err  error
	}
	// A read from a terminal cannot be interrupted; the goroutine ends with the process.
	done := make(chan result, 1)
	go func() {
		line, err := in.ReadString('\n')
		done <- result{strings.TrimSpace(line), err}
	}()
	select {
	case <-ctx.Done():
		return "", ctx.Err()
	case r := <-done:
		if r.err == io.EOF && r.line == "" {
			return "", ErrCancelled
		}
		return r.line, nil
	}
}

// ReadAll reads r to its end, or until ctx ends.
func ReadAll(ctx context.Context, r io.Reader) ([]byte, error) {
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() { // As in readLine.
		data, err := io.ReadAll(r)
		done <- result{data, err}
	}()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-done:
		return r.data, r.err
	}
}
