package micro

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"authserver/store/boltstore"
)

const (
	countedEnv = "MICRO_COUNTED" // set in the process whose instructions are counted
	mark       = syscall.SIGUSR1 // it sends itself one before and after what is to be counted
)

// A change that makes an operation take a tenth more instructions than before is seen
// on any machine: it needs no hardware counters. The operations run in a process of
// its own whose thread is taken through them step by step (ptrace), without the
// instructions that only some processors have.
func TestInstructions(t *testing.T) {
	if os.Getenv("AUTHSERVER_TEST_INSTRUCTIONS") == "" {
		t.Skip("takes a minute on a busy machine; run by `make instructions`")
	}
	if raced || runtime.GOARCH != "amd64" {
		t.Fatal("the numbers are of amd64 without the race detector")
	}
	hold(t, "instructions.txt", "instructions", countInstructions(t))
}

// TestCounted is the process that is counted.
func TestCounted(t *testing.T) {
	if os.Getenv(countedEnv) == "" {
		t.Skip("run by TestInstructions")
	}
	operations := alone(t)
	runtime.LockOSThread()
	pid, thread := os.Getpid(), syscall.Gettid()
	said := os.NewFile(3, "counter")
	say := func(line string) {
		if _, err := fmt.Fprintln(said, line); err != nil {
			t.Fatal(err)
		}
	}
	say(strconv.Itoa(thread))
	told(t) // that the counter has attached itself
	step := func() { syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(pid), uintptr(thread), uintptr(mark)) }
	for _, m := range operations {
		for again := true; again; again = told(t) {
			for range 20 { // whatever is made once is made
				if err := m.call(); err != nil {
					t.Fatalf("%s: %v", m.name, err)
				}
			}
			say(m.name)
			step()
			err := m.call()
			step()
			if err != nil {
				t.Fatalf("%s: %v", m.name, err)
			}
		}
	}
	say("")
	step()
}

// told waits for a word of the counter, and returns whether it wants another count.
func told(t *testing.T) bool {
	word := make([]byte, 1)
	if _, err := os.Stdin.Read(word); err != nil {
		t.Fatal(err)
	}
	return word[0] == 'a'
}

// alone are the operations that one goroutine does without waiting for another.
func alone(t testing.TB) []measured {
	embedded, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { embedded.Close() })
	var list []measured
	for _, m := range append(append(endpoints(t, "embedded", embedded), methods(t, "embedded", embedded)[0]), parts(t)...) {
		if !strings.HasSuffix(m.name, "refresh_token") {
			list = append(list, m)
		}
	}
	return list
}

// countInstructions starts TestCounted and counts.
func countInstructions(t *testing.T) (figures []figure) {
	runtime.LockOSThread() // only the thread that has attached itself may trace
	defer runtime.UnlockOSThread()
	heard, said, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	command := exec.Command(os.Args[0], "-test.run=^TestCounted$")
	// No collection of garbage and no preemption in between, which come when they come.
	command.Env = append(os.Environ(), countedEnv+"=1", "GOGC=off", "GOMAXPROCS=4", "GODEBUG=asyncpreemptoff=1,cpu.all=off")
	command.ExtraFiles = []*os.File{said}
	var output strings.Builder
	command.Stdout, command.Stderr = &output, &output
	tell, err := command.StdinPipe()
	if err == nil {
		err = command.Start()
	}
	said.Close()
	if err != nil {
		t.Fatal(err)
	}
	finished := false
	defer func() {
		if !finished {
			command.Process.Kill()
		}
		if err := command.Wait(); err != nil && finished {
			t.Errorf("%v\n%s", err, output.String())
		}
	}()
	lines := bufio.NewScanner(heard)
	lines.Scan()
	thread, err := strconv.Atoi(lines.Text())
	if err != nil {
		t.Fatalf("%v\n%s", err, output.String())
	}
	monitor := secondThread(t, command.Process.Pid)
	for _, one := range []int{thread, monitor} {
		if err := syscall.PtraceAttach(one); err != nil {
			t.Fatalf("this system lets nobody trace a process: %v", err)
		}
		stopped(t, one)
	}
	io.WriteString(tell, "b")
	// toMark lets the thread go on, as resume says, until it sends itself the mark.
	toMark := func(resume func() error) (times int) {
		for {
			if err := resume(); err != nil {
				t.Fatal(err)
			}
			times++
			if stopped(t, thread) == mark {
				return times
			}
		}
	}
	for times := 0; ; {
		toMark(func() error { return syscall.PtraceCont(thread, 0) })
		if !lines.Scan() {
			t.Fatal("the process says nothing of what it is about to do")
		}
		if lines.Text() == "" {
			break
		}
		count := toMark(func() error { return syscall.PtraceSingleStep(thread) })
		if last := len(figures) - 1; last >= 0 && figures[last].name == lines.Text() {
			figures[last].n = min(figures[last].n, float64(count))
		} else {
			figures, times = append(figures, figure{lines.Text(), float64(count)}), 0
		}
		// In some calls the runtime fetches memory. It matters in the short ones, and the
		// least of some counts is without it.
		if times++; times*count < 150_000 && times < 5 {
			io.WriteString(tell, "a")
		} else {
			io.WriteString(tell, "b")
		}
	}
	for _, one := range []int{thread, monitor} {
		if err := syscall.PtraceDetach(one); err != nil {
			t.Fatal(err)
		}
	}
	finished = true
	return figures
}

// secondThread is the one of a Go program that interrupts goroutines that have run for
// long. It has to be stopped, for they take as long as it is slow to count.
func secondThread(t *testing.T, process int) int {
	directory, err := os.Open(fmt.Sprintf("/proc/%d/task", process))
	if err != nil {
		t.Fatal(err)
	}
	defer directory.Close()
	threads, err := directory.Readdirnames(-1) // not sorted: in the order in which they began
	if err != nil || len(threads) < 2 {
		t.Fatalf("threads %v: %v", threads, err)
	}
	second, err := strconv.Atoi(threads[1])
	if err != nil {
		t.Fatal(err)
	}
	return second
}

// stopped waits until a traced thread has stopped, and returns the signal that did it.
func stopped(t *testing.T, thread int) syscall.Signal {
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(thread, &status, syscall.WALL, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil || !status.Stopped():
			t.Fatalf("the thread that is counted: %v, status %#x", err, uint32(status))
		}
		return status.StopSignal()
	}
}
