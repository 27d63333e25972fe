package micro

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	countedEnv = "MICRO_COUNTED" // set in the process whose instructions are counted
	mark       = syscall.SIGUSR1 // it sends itself one before and after what is to be counted, and when it has said what that was
	counts     = 6               // of each operation, at most
	patience   = 2 * time.Minute // with one count, which takes seconds

	// What the process says instead of the name of an operation, and what it is told.
	refused, ended    = "refused", "ended"
	begin, more, next = "b", "m", "n"
)

// bare is what the standard library, the runtime and the kernel do, and as how many
// instructions a call of it is counted instead of being stepped through.
var bare = map[string]int{
	// It is not ours to make cheaper, and so much more than everything else that this would not be seen beside it.
	"crypto/ecdsa.(*PrivateKey).Sign": 20_000, "crypto/ecdsa.VerifyASN1": 20_000,
	"crypto/internal/fips140/ed25519.sign": 20_000, "crypto/internal/fips140/ed25519.verify": 20_000,
	"crypto/internal/fips140/sha256.blockGeneric": 500, "crypto/internal/fips140/sha512.blockGeneric": 500,
	// They take more in some calls than in others: for memory, which is cleared where it was used before, and random numbers,
	"runtime.(*mcache).nextFree": 50, "runtime.gcTrigger.test": 0, "runtime.memclrNoHeapPointers": 0,
	"internal/chacha8rand.block": 300,
	// when what they wait for is there already, or is not, or somebody waits for this,
	"internal/poll.(*FD).Read": 300, "internal/poll.(*FD).Write": 300, "syscall.Syscall": 100,
	"runtime.selectgo": 300, "runtime.gopark": 100, "runtime.goready": 100,
}

// yields are called at the beginning of a function, which then begins again: when the
// stack grows, and when it is another goroutine's turn, as it is every few hundred steps.
var yields = []string{"runtime.morestack", "runtime.morestack_noctxt"}

// outside is the same for code that is not the program's but the kernel's, which tells the time.
const outside = 50

// errUncountable says that this system lets nobody trace a process.
var errUncountable = errors.New("no process can be traced here")

// A change that makes an operation take a tenth more instructions than before is seen
// on any machine: it needs no hardware counters. The operations run in a process of
// its own whose thread is taken through them step by step (ptrace), without the
// instructions that only some processors have.
func TestInstructions(t *testing.T) {
	if raced || runtime.GOARCH != "amd64" {
		t.Skip("the numbers are of amd64 without the race detector; `make test` runs this without it as well")
	}
	allowed, err := read("instructions.txt")
	if err != nil {
		t.Fatal(err)
	}
	// Maps grow and pages are looked for in some calls, which take more; none takes less than it has to.
	enough := func(name string, found []float64) bool {
		if *update {
			return len(found) > 1 && found[1] <= found[0]*1.005
		}
		return !figure{name, found[0]}.above(allowed[name])
	}
	figures, err := countInstructions(enough)
	if errors.Is(err, errUncountable) {
		fmt.Printf("\nNOT COUNTED: instructions of single operations, so a change that costs more is not seen here: %v.\n"+
			"Allow ptrace (in a container: --cap-add=SYS_PTRACE) and run `make instructions`.\n\n", err)
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	hold(t, "instructions.txt", "instructions", "make instructions UPDATE=-update", figures)
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
	hear := func() string {
		var answer [1]byte
		if _, err := os.Stdin.Read(answer[:]); err != nil {
			t.Fatal(err)
		}
		return string(answer[:])
	}
	say(thread, here())
	hear() // when the counter has attached itself
	// It is said afterwards whether there is something to count: on a busy machine
	// what renews leases and follows revocations is late, and then calls are refused.
	measure := func(m measured) (answer string, err error) {
		if m.before != nil {
			if err := m.before(); err != nil {
				return more, err
			}
		}
		step()
		err = m.call()
		step()
		if err != nil {
			say(refused)
		} else {
			say(m.name)
		}
		step()
		return hear(), err
	}
	for _, m := range operations {
		deadline := time.Now().Add(time.Minute)
		for left, answer := 20, more; answer == more; {
			var err error
			if left > 0 { // whatever is made once is made
				err = m.whole()
				left--
			} else {
				answer, err = measure(m)
			}
			switch {
			case err == nil:
				deadline = time.Now().Add(time.Minute)
			case time.Now().After(deadline):
				t.Fatalf("%s: %v", m.name, err)
			default:
				time.Sleep(50 * time.Millisecond)
			}
		}
	}
	step()
	step()
	say(ended)
	step()
}

// here is an address of the program's code, which is elsewhere in another process if
// it was built to be.
func here() uintptr { return reflect.ValueOf(TestCounted).Pointer() }

// alone are the operations that one goroutine does, all but what it waits for: the embedded
// store's writer is another one, and Redis another process.
func alone(t testing.TB) []measured {
	embedded, redis := stores(t)
	return slices.Concat(endpoints(t, "embedded", embedded), methods(t, "embedded", embedded)[:1], methods(t, "Redis", redis), parts(t))
}

// countInstructions starts TestCounted and counts each operation until there are enough
// counts of it, which are sorted, or as many as there may be. The least of them is its own.
func countInstructions(enough func(name string, found []float64) bool) ([]figure, error) {
	heard, said, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer heard.Close()
	command := exec.Command(os.Args[0], "-test.run=^TestCounted$")
	// No garbage is collected in between, and goroutines take turns on one processor: where they
	// ran beside each other, one would now and then wait for another, or miss its pools.
	command.Env = append(os.Environ(), countedEnv+"=1", "GOGC=off", "GOMAXPROCS=1", "GODEBUG=asyncpreemptoff=1,cpu.all=off")
	command.ExtraFiles = []*os.File{said}
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // with its Redis
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
		figures, err = count(command.Process.Pid, heard, tell, enough)
		done <- err
	}()
	counted := <-done
	tell.Close()
	if ended := command.Wait(); counted == nil {
		counted = ended
	}
	if counted != nil && !errors.Is(counted, errUncountable) {
		counted = fmt.Errorf("%w\n%s", counted, output.String())
	}
	return figures, counted
}

// count takes the thread that a process names through its operations. After an error
// the process has ended, or does so when nobody tells it anything more.
func count(process int, heard io.Reader, tell io.Writer, enough func(string, []float64) bool) (figures []figure, err error) {
	kill := func() { unix.Kill(-process, unix.SIGKILL) }
	stuck := time.AfterFunc(patience, kill)
	defer stuck.Stop()
	lines := bufio.NewScanner(heard)
	lines.Scan()
	var c counter
	var address uintptr
	if _, err := fmt.Sscan(lines.Text(), &c.thread, &address); err != nil {
		return nil, fmt.Errorf("the process does not begin: %w", err)
	}
	c.moved = address - here()
	if err := unix.PtraceAttach(c.thread); err != nil {
		return nil, fmt.Errorf("%w: %w", errUncountable, err)
	}
	defer func() {
		if !stuck.Stop() {
			err = fmt.Errorf("an operation was not counted in %v", patience)
		}
		if err == nil {
			err = unix.PtraceDetach(c.thread)
			return
		}
		kill()
		for stopErr := error(nil); stopErr == nil; { // until then nobody else hears that it has ended
			_, stopErr = c.stopped()
		}
	}()
	if _, err := c.stopped(); err != nil {
		return nil, err
	}
	var found []float64 // of one operation
	for answer := begin; ; stuck.Reset(patience) {
		if _, err := io.WriteString(tell, answer); err != nil {
			return nil, err
		}
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
		answer = more
		switch name := lines.Text(); name {
		case ended:
			return figures, nil
		case refused:
		default:
			found = append(found, float64(n))
			slices.Sort(found)
			if enough(name, found) || len(found) == counts {
				figures = append(figures, figure{name, found[0]})
				answer, found = next, nil
			}
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
		if signal, err := c.stopped(); err != nil || signal == mark {
			return err
		}
	}
}

// stepToMark counts the instructions until then.
func (c *counter) stepToMark() (n int, err error) {
	begun, again := 0, false // n where the function that was entered last began, and whether it does so again
	for {
		if err := unix.PtraceSingleStep(c.thread); err != nil {
			return n, err
		}
		n++
		signal, err := c.stopped()
		if err != nil || signal == mark {
			return n, err
		}
		at, err := c.peek(unsafe.Offsetof(unix.PtraceRegs{}.Rip))
		if err != nil {
			return n, err
		}
		f := runtime.FuncForPC(at - c.moved)
		if f != nil && f.Entry() != at-c.moved {
			continue
		}
		taken, skipped := outside, true
		switch {
		case f == nil:
		case slices.Contains(yields, f.Name()):
			taken, again = 0, true
		case again:
			n, again, skipped = begun, false, false
		default:
			begun = n
			taken, skipped = bare[f.Name()]
		}
		if skipped {
			if err := c.leave(); err != nil {
				return n, err
			}
			n += taken
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
		switch signal, err := c.stopped(); {
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

// stopped waits until the thread has stopped, and returns the signal that did it.
func (c *counter) stopped() (syscall.Signal, error) {
	for {
		var status unix.WaitStatus
		_, err := unix.Wait4(c.thread, &status, unix.WALL, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || !status.Stopped():
			return 0, fmt.Errorf("the thread that is counted has not stopped: status %#x, error %v", uint32(status), err)
		}
		return status.StopSignal(), nil
	}
}
