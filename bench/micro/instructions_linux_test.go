package micro

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"authserver/store/boltstore"
)

const (
	countedEnv = "MICRO_COUNTED" // set in the process whose instructions are counted
	mark       = syscall.SIGUSR1 // it sends itself one before and after what is to be counted, and when it has said what that was
	counts     = 3               // of each operation

	// What the process says instead of the name of an operation.
	refused, ended = "refused", "ended"
)

// bare is what the standard library and the runtime do, and as how many instructions a call of it
// is counted instead of being stepped through: it is not ours to make cheaper, and so
// much more than everything else that this would not be seen beside it.
var bare = map[string]int{
	"crypto/ecdsa.(*PrivateKey).Sign": 20_000, "crypto/ecdsa.VerifyASN1": 20_000,
	"crypto/internal/fips140/ed25519.sign": 20_000, "crypto/internal/fips140/ed25519.verify": 20_000,
	"crypto/internal/fips140/sha256.blockGeneric": 500, "crypto/internal/fips140/sha512.blockGeneric": 500,
	"runtime.(*mcache).refill": 100, // of memory, in some calls and not in others
}

var (
	// errUncountable says that this system lets nobody trace a process.
	errUncountable = errors.New("no process can be traced here")
	// errStuck may pass: the thread that would wake others that wait is stopped.
	errStuck = errors.New("the operations were not counted in two minutes")
)

// A change that makes an operation take a tenth more instructions than before is seen
// on any machine: it needs no hardware counters. The operations run in a process of
// its own whose thread is taken through them step by step (ptrace), without the
// instructions that only some processors have.
func TestInstructions(t *testing.T) {
	if raced || runtime.GOARCH != "amd64" {
		t.Skip("the numbers are of amd64 without the race detector; `make test` runs this without it as well")
	}
	// Where one seems to take more, or hangs, all are counted again: what is really more
	// is so every time.
	var least []figure
	for again := range 3 {
		figures, err := countInstructions()
		if errors.Is(err, errUncountable) {
			fmt.Printf("\nNOT COUNTED: instructions of single operations, so a change that costs more is not seen here: %v.\n"+
				"Allow ptrace (in a container: --cap-add=SYS_PTRACE) and run `make instructions`.\n\n", err)
			t.Skip(err)
		}
		if errors.Is(err, errStuck) && again < 2 {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range figures {
			if i < len(least) {
				figures[i].n = min(figures[i].n, least[i].n)
			}
		}
		if least = figures; !*update && !grown(t, "instructions.txt", least) {
			break
		}
	}
	hold(t, "instructions.txt", "instructions", "make instructions UPDATE=-update", least)
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
	say := func(words ...any) {
		if _, err := fmt.Fprintln(said, words...); err != nil {
			t.Fatal(err)
		}
	}
	step := func() { syscall.RawSyscall(syscall.SYS_TGKILL, uintptr(pid), uintptr(thread), uintptr(mark)) }
	say(thread, here())
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil { // until the counter has attached itself
		t.Fatal(err)
	}
	// measured says afterwards whether there is something to count: on a busy machine
	// what renews leases and follows revocations is late, and then calls are refused.
	measured := func(name string, call func() error) error {
		step()
		err := call()
		step()
		if err != nil {
			name = refused
		}
		say(name)
		step()
		return err
	}
	for _, m := range operations {
		deadline := time.Now().Add(time.Minute)
		for left := 20 + counts; left > 0; {
			var err error
			if left > counts { // whatever is made once is made
				err = m.call()
			} else {
				err = measured(m.name, m.call)
			}
			switch {
			case err == nil:
				left--
			case time.Now().After(deadline):
				t.Fatalf("%s: %v", m.name, err)
			default:
				time.Sleep(50 * time.Millisecond)
			}
		}
	}
	measured(ended, func() error { return nil })
}

// here is an address of the program's code, which is elsewhere in another process if
// it was built to be.
func here() uintptr { return reflect.ValueOf(TestCounted).Pointer() }

// alone are the operations that one goroutine does without waiting for another.
func alone(t testing.TB) []measured {
	embedded, err := boltstore.Open(filepath.Join(t.TempDir(), "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { embedded.Close() })
	all := append(append(endpoints(t, "embedded", embedded), methods(t, "embedded", embedded)[0]), parts(t)...)
	return slices.DeleteFunc(all, func(m measured) bool { return strings.HasSuffix(m.name, "refresh_token") })
}

// countInstructions starts TestCounted and counts.
func countInstructions() ([]figure, error) {
	heard, said, err := os.Pipe()
	if err != nil {
		return nil, err
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
		return nil, err
	}
	var figures []figure
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // only the thread that has attached itself may trace
		defer runtime.UnlockOSThread()
		figures, err = count(command.Process, heard, tell)
		done <- err
	}()
	inTime := time.AfterFunc(2*time.Minute, func() { command.Process.Kill() }) // it takes seconds
	counted := <-done
	tell.Close()
	ended := command.Wait()
	if !inTime.Stop() {
		counted = errStuck
	}
	if counted == nil {
		counted = ended
	}
	if counted != nil && !errors.Is(counted, errUncountable) {
		counted = fmt.Errorf("%w\n%s", counted, output.String())
	}
	return figures, counted
}

// count takes the thread that the process names through its operations. After an error
// the process has ended.
func count(process *os.Process, heard io.Reader, tell io.Writer) (figures []figure, err error) {
	var traced []int
	defer func() {
		if err == nil {
			for _, one := range traced {
				err = errors.Join(err, unix.PtraceDetach(one))
			}
			return
		}
		process.Kill()
		for _, one := range traced { // until then nobody else hears that it has ended
			for stopErr := error(nil); stopErr == nil; {
				_, stopErr = stopped(one)
			}
		}
	}()
	lines := bufio.NewScanner(heard)
	lines.Scan()
	var c counter
	var address uintptr
	if _, err := fmt.Sscan(lines.Text(), &c.thread, &address); err != nil {
		return nil, fmt.Errorf("the process does not begin: %w", err)
	}
	c.moved = address - here()
	monitor, err := secondThread(process.Pid)
	if err != nil {
		return nil, err
	}
	for _, one := range []int{c.thread, monitor} {
		if err := unix.PtraceAttach(one); err != nil {
			return nil, fmt.Errorf("%w: %w", errUncountable, err)
		}
		traced = append(traced, one)
		if _, err := stopped(one); err != nil {
			return nil, err
		}
	}
	if _, err := io.WriteString(tell, "b"); err != nil {
		return nil, err
	}
	for {
		if err := c.toMark(); err != nil {
			return nil, err
		}
		n, err := c.stepToMark()
		if err != nil {
			return nil, err
		}
		if err := c.toMark(); err != nil {
			return nil, err
		}
		if !lines.Scan() {
			return nil, errors.New("the process does not say what it has done")
		}
		name := lines.Text()
		switch last := len(figures) - 1; {
		case name == ended:
			return figures, nil
		case name == refused:
		case last >= 0 && figures[last].name == name:
			// Maps grow and pages are looked for in some calls. The least of some counts is without that.
			figures[last].n = min(figures[last].n, float64(n))
		default:
			figures = append(figures, figure{name, float64(n)})
		}
	}
}

// counter traces a thread.
type counter struct {
	thread int
	moved  uintptr // by how much its code is elsewhere than ours
}

// toMark lets the thread run until it sends itself the mark.
func (c *counter) toMark() error {
	for {
		if err := unix.PtraceCont(c.thread, 0); err != nil {
			return err
		}
		if signal, err := stopped(c.thread); err != nil || signal == mark {
			return err
		}
	}
}

// stepToMark counts the instructions until then.
func (c *counter) stepToMark() (n int, err error) {
	for {
		if err := unix.PtraceSingleStep(c.thread); err != nil {
			return n, err
		}
		n++
		signal, err := stopped(c.thread)
		if err != nil || signal == mark {
			return n, err
		}
		at, err := c.peek(unsafe.Offsetof(unix.PtraceRegs{}.Rip))
		if err != nil {
			return n, err
		}
		if f := runtime.FuncForPC(at - c.moved); f != nil && f.Entry() == at-c.moved && bare[f.Name()] != 0 {
			if err := c.leave(); err != nil {
				return n, err
			}
			n += bare[f.Name()]
		}
	}
}

// leave lets the thread run until the function that it has just entered returns.
func (c *counter) leave() error {
	stack, err := c.peek(unsafe.Offsetof(unix.PtraceRegs{}.Rsp))
	if err != nil {
		return err
	}
	var address [8]byte
	if _, err := unix.PtracePeekData(c.thread, stack, address[:]); err != nil {
		return err
	}
	// A breakpoint of the processor is one for this thread only.
	if err := errors.Join(c.poke(debugRegisters, address), c.poke(debugRegisters+7*8, [8]byte{1})); err != nil {
		return fmt.Errorf("%w: no breakpoints of the processor: %w", errUncountable, err)
	}
	for {
		if err := unix.PtraceCont(c.thread, 0); err != nil {
			return err
		}
		switch signal, err := stopped(c.thread); {
		case err != nil:
			return err
		case signal == mark:
			return fmt.Errorf("%w: no breakpoints of the processor", errUncountable)
		case signal == syscall.SIGTRAP:
			return c.poke(debugRegisters+7*8, [8]byte{})
		}
	}
}

// debugRegisters is where struct user of <sys/user.h> has them.
const debugRegisters = 848

func (c *counter) peek(register uintptr) (uintptr, error) {
	var value [8]byte
	_, err := unix.PtracePeekUser(c.thread, register, value[:])
	return uintptr(binary.LittleEndian.Uint64(value[:])), err
}

func (c *counter) poke(register uintptr, value [8]byte) error {
	_, err := unix.PtracePokeUser(c.thread, register, value[:])
	return err
}

// secondThread is the one of a Go program that interrupts goroutines that have run for
// long. It has to be stopped, for they take as long as it is slow to count.
func secondThread(process int) (int, error) {
	directory, err := os.Open(fmt.Sprintf("/proc/%d/task", process))
	if err != nil {
		return 0, err
	}
	defer directory.Close()
	threads, err := directory.Readdirnames(-1) // not sorted: in the order in which they began
	if err != nil || len(threads) < 2 {
		return 0, fmt.Errorf("threads %v: %w", threads, err)
	}
	return strconv.Atoi(threads[1])
}

// stopped waits until a traced thread has stopped, and returns the signal that did it.
func stopped(thread int) (syscall.Signal, error) {
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(thread, &status, unix.WALL, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || !status.Stopped():
			return 0, fmt.Errorf("the thread that is counted has not stopped: status %#x, error %v", uint32(status), err)
		}
		return status.StopSignal(), nil
	}
}
