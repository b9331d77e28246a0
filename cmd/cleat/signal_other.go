//go:build !unix

package main

import (
	"errors"
	"os"
	"os/signal"
)

// notify sends the one signal there is to ch, until the function returned is called.
func notify(ch chan os.Signal) (stop func()) {
	signal.Notify(ch, os.Interrupt)
	return func() { signal.Stop(ch) }
}

// meaning is what a signal asks for.
func meaning(os.Signal) action { return actInterrupt }

func sendSignal(string, string) error {
	return errors.New("signals can not be sent on this system")
}
