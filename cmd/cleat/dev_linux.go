package main

import "syscall"

// endWithParent has the kernel stop a server whose parent was killed and cannot.
func endWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = syscall.SIGTERM }
