"""A pool of threads in text IR, which needs nothing but libc.

    void graphc_pool_run(ptr body, ptr arguments, i64 chunks, i64 threads)
    void body(ptr arguments, i64 chunk, i64 slot)              slot: 0 for the caller, 1 .. threads - 1 for workers

A call is one region: every chunk is done exactly once, by the caller or by a worker that joined, and all are done when
it returns.  No two that work at the same time have the same slot.

    state     generation:32 | open:1 | joined:15 | active:16     one word, so that joining is one compare-and-swap
    next      the first chunk that nobody has claimed

A worker joins while the region is open and fewer than threads - 1 have joined, and claims chunks until there are none.
The caller does the same, closes the region, and waits for those workers only that are active: one that has not started
yet, because it sleeps or its core is taken, is never waited for.  Waiting and idling spin for a while and then sleep in
the kernel (futex), at once where the threads outnumber the cores that the process may use.

The caller has the pool to itself: a region that begins while another runs, in another thread or inside a chunk, is done
by its caller alone.  Workers are made by the first region that wants them, with all signals blocked, and never end.
A child process has none of its parent's threads: it finds the pool's owner to be another process, and starts anew.
"""

from __future__ import annotations

import ctypes
import threading

from graphc.ir.errors import Unsupported

from .cache import Cache
from .elf.load import HOST
from .jit import Loaded, content_key, loaded_image, made_image
from .target import HOSTS, Target
from .text import Module

MADE: list[Loaded] = []  # the pool, when there is one
LOCK = threading.Lock()

RUN = "graphc_pool_run"
IMPORTS = ("getpid", "pthread_create", "pthread_sigmask", "syscall")
LINKAGE = {True: "", False: "internal "}  # whether others may link to it

# Numbers of system calls, and an instruction for loops that wait, with rounds of some 50 microseconds.
FUTEX = {"x86_64": 202, "aarch64": 98}
GETAFFINITY = {"x86_64": 204, "aarch64": 123}  # the function of libc has several versions
PAUSE = {"x86_64": ("llvm.x86.sse2.pause", "", 3000), "aarch64": ("llvm.aarch64.hint", "i32 1", 30000)}
WAIT, WAKE = 128, 129  # of threads of one process
SIG_SETMASK = 2
SIGSET_BYTES = 128
CPU_WORDS = 16  # 1024 cores

OPEN, JOINED, ACTIVE, GENERATION = 1 << 31, 16, (1 << 16) - 1, 32
MOST_JOINED = (1 << 15) - 1
ADOPTING = -1  # the owner, while the pool changes hands

GLOBALS = """\
@graphc_pool_state = internal global i64 0, align 64
@graphc_pool_next = internal global i64 0, align 64
@graphc_pool_region = internal global {ptr, ptr, i64, i64} zeroinitializer, align 64
@graphc_pool_busy = internal global i32 0, align 64
@graphc_pool_owner = internal global i32 0
@graphc_pool_workers = internal global i32 0
@graphc_pool_cores = internal global i64 0
@graphc_pool_rounds = internal global i32 0
@graphc_pool_sleepers = internal global i32 0, align 64
@graphc_pool_waiting = internal global i32 0
"""

# Whether the caller gets the pool: not while another has it.
TAKE = """\
define internal i1 @graphc_pool_take() #0 {{
entry:
  %self = call i32 @getpid()
  %owner = load atomic i32, ptr @graphc_pool_owner acquire, align 4
  %ours = icmp eq i32 %owner, %self
  br i1 %ours, label %take, label %other
other:
  %changing = icmp eq i32 %owner, {adopting}
  br i1 %changing, label %no, label %adopt
adopt:
  %pair = cmpxchg ptr @graphc_pool_owner, i32 %owner, i32 {adopting} acq_rel monotonic
  %first = extractvalue {{i32, i1}} %pair, 1
  br i1 %first, label %reset, label %no
reset:
  store i32 0, ptr @graphc_pool_workers
  store i32 0, ptr @graphc_pool_sleepers
  store i32 0, ptr @graphc_pool_waiting
  store i64 0, ptr @graphc_pool_state
  store i32 0, ptr @graphc_pool_busy
  store atomic i32 %self, ptr @graphc_pool_owner release, align 4
  br label %take
take:
  %busy = atomicrmw xchg ptr @graphc_pool_busy, i32 1 acquire
  %free = icmp eq i32 %busy, 0
  ret i1 %free
no:
  ret i1 false
}}
"""

# The cores that the process may use.
CORES = """\
define internal i64 @graphc_pool_count() #0 {{
entry:
  %set = alloca [{words} x i64], align 8
  call void @llvm.memset.p0.i64(ptr %set, i8 0, i64 {bytes}, i1 false)
  %written = call i64 (i64, ...) @syscall(i64 {getaffinity}, i32 0, i64 {bytes}, ptr %set)
  br label %head
head:
  %i = phi i64 [0, %entry], [%following, %head]
  %cores = phi i64 [0, %entry], [%sum, %head]
  %place = getelementptr i64, ptr %set, i64 %i
  %word = load i64, ptr %place, align 8
  %ones = call i64 @llvm.ctpop.i64(i64 %word)
  %sum = add i64 %cores, %ones
  %following = add i64 %i, 1
  %more = icmp ult i64 %following, {words}
  br i1 %more, label %head, label %done
done:
  ret i64 %sum
}}
"""

# Makes the workers that are missing; those that the system refuses are not asked for again.
GROW = """\
define internal void @graphc_pool_grow(i64 %threads) #0 {{
entry:
  %workers = load i32, ptr @graphc_pool_workers
  %given = sub i64 %threads, 1
  %capped = call i64 @llvm.umin.i64(i64 %given, i64 {most})
  %wanted = trunc i64 %capped to i32
  %enough = icmp uge i32 %workers, %wanted
  br i1 %enough, label %done, label %few
few:
  %thread = alloca i64, align 8
  %all = alloca [{sigset} x i8], align 8
  %old = alloca [{sigset} x i8], align 8
  %cores = call i64 @graphc_pool_count()
  store i64 %cores, ptr @graphc_pool_cores
  call void @llvm.memset.p0.i64(ptr %all, i8 -1, i64 {sigset}, i1 false)
  %masked = call i32 @pthread_sigmask(i32 {setmask}, ptr %all, ptr %old)
  %state = load i64, ptr @graphc_pool_state
  %generation = lshr i64 %state, {generation}
  %seen = inttoptr i64 %generation to ptr
  br label %make
make:
  %count = phi i32 [%workers, %few], [%following, %made]
  %fault = call i32 @pthread_create(ptr %thread, ptr null, ptr @graphc_pool_worker, ptr %seen)
  %good = icmp eq i32 %fault, 0
  br i1 %good, label %made, label %end
made:
  %following = add i32 %count, 1
  %more = icmp ult i32 %following, %wanted
  br i1 %more, label %make, label %end
end:
  store i32 %wanted, ptr @graphc_pool_workers
  %restored = call i32 @pthread_sigmask(i32 {setmask}, ptr %old, ptr null)
  br label %done
done:
  ret void
}}
"""

# Claims chunks until there are none.
DRAIN = """\
define internal void @graphc_pool_drain(i64 %slot) #0 {{
entry:
  %region.1 = getelementptr i64, ptr @graphc_pool_region, i64 1
  %region.2 = getelementptr i64, ptr @graphc_pool_region, i64 2
  %body = load ptr, ptr @graphc_pool_region, align 8
  %arguments = load ptr, ptr %region.1, align 8
  %chunks = load i64, ptr %region.2, align 8
  br label %claim
claim:
  %chunk = atomicrmw add ptr @graphc_pool_next, i64 1 monotonic
  %some = icmp ult i64 %chunk, %chunks
  br i1 %some, label %work, label %done
work:
  call void %body(ptr %arguments, i64 %chunk, i64 %slot)
  br label %claim
done:
  ret void
}}
"""

WORKER = """\
define internal ptr @graphc_pool_worker(ptr %start) #0 {{
entry:
  %first = ptrtoint ptr %start to i64
  %word = getelementptr i8, ptr @graphc_pool_state, i64 4
  %region.3 = getelementptr i64, ptr @graphc_pool_region, i64 3
  br label %look
look:
  %seen = phi i64 [%first, %entry], [%seen, %join], [%seen, %idle], [%seen, %sleep], [%generation, %rest]
  %round = phi i32 [0, %entry], [%round, %join], [%later, %idle], [0, %sleep], [0, %rest]
  %state = load atomic i64, ptr @graphc_pool_state acquire, align 64
  %generation = lshr i64 %state, {generation}
  %fresh = icmp ne i64 %generation, %seen
  %flag = and i64 %state, {open}
  %open = icmp ne i64 %flag, 0
  %may = and i1 %fresh, %open
  %above = lshr i64 %state, {joined}
  %joined = and i64 %above, {most}
  %most = load atomic i64, ptr %region.3 monotonic, align 8
  %room = icmp ult i64 %joined, %most
  %try = and i1 %may, %room
  br i1 %try, label %join, label %wait
join:
  %one = add i64 %state, {one}
  %pair = cmpxchg ptr @graphc_pool_state, i64 %state, i64 %one seq_cst monotonic
  %in = extractvalue {{i64, i1}} %pair, 1
  br i1 %in, label %work, label %look
work:
  %slot = add i64 %joined, 1
  call void @graphc_pool_drain(i64 %slot)
  %before = atomicrmw sub ptr @graphc_pool_state, i64 1 seq_cst
  %others = and i64 %before, {active}
  %last = icmp eq i64 %others, 1
  %waiting = load atomic i32, ptr @graphc_pool_waiting seq_cst, align 4
  %awaited = icmp ne i32 %waiting, 0
  %call = and i1 %last, %awaited
  br i1 %call, label %report, label %rest
report:
  %told = call i64 (i64, ...) @syscall(i64 {futex}, ptr @graphc_pool_state, i32 {wake}, i32 1{rest})
  br label %rest
rest:
  br label %look
wait:
  %rounds = load atomic i32, ptr @graphc_pool_rounds monotonic, align 4
  %enough = icmp uge i32 %round, %rounds
  br i1 %enough, label %sleep, label %idle
idle:
  call void @{pause}({hint})
  %later = add i32 %round, 1
  br label %look
sleep:
  %expected = trunc i64 %generation to i32
  %in.bed = atomicrmw add ptr @graphc_pool_sleepers, i32 1 seq_cst
  %slept = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 {wait}, i32 %expected{rest})
  %out = atomicrmw sub ptr @graphc_pool_sleepers, i32 1 seq_cst
  br label %look
}}
"""

# Opens a region for so many workers, and wakes those that sleep; says how often to look before sleeping.
OPENING = """\
define internal void @graphc_pool_open(ptr %body, ptr %arguments, i64 %chunks, i64 %threads) #0 {{
entry:
  %region.1 = getelementptr i64, ptr @graphc_pool_region, i64 1
  %region.2 = getelementptr i64, ptr @graphc_pool_region, i64 2
  %region.3 = getelementptr i64, ptr @graphc_pool_region, i64 3
  %given = sub i64 %threads, 1
  %spare = sub i64 %chunks, 1
  %useful = call i64 @llvm.umin.i64(i64 %given, i64 %spare)
  %most = call i64 @llvm.umin.i64(i64 %useful, i64 {most})
  store ptr %body, ptr @graphc_pool_region, align 8
  store ptr %arguments, ptr %region.1, align 8
  store i64 %chunks, ptr %region.2, align 8
  store atomic i64 %most, ptr %region.3 monotonic, align 8
  %cores = load i64, ptr @graphc_pool_cores
  %enough = icmp uge i64 %cores, %threads
  %rounds = select i1 %enough, i32 {rounds}, i32 0
  store atomic i32 %rounds, ptr @graphc_pool_rounds monotonic, align 4
  store atomic i64 0, ptr @graphc_pool_next monotonic, align 64
  %state = load atomic i64, ptr @graphc_pool_state monotonic, align 64
  %old = lshr i64 %state, {generation}
  %new = add i64 %old, 1
  %generation = shl i64 %new, {generation}
  %opened = or i64 %generation, {open}
  store atomic i64 %opened, ptr @graphc_pool_state seq_cst, align 64
  %sleepers = load atomic i32, ptr @graphc_pool_sleepers seq_cst, align 64
  %some = icmp ne i32 %sleepers, 0
  br i1 %some, label %call, label %done
call:
  %word = getelementptr i8, ptr @graphc_pool_state, i64 4
  %count = trunc i64 %most to i32
  %woken = call i64 (i64, ...) @syscall(i64 {futex}, ptr %word, i32 {wake}, i32 %count{rest})
  br label %done
done:
  ret void
}}
"""

# Nobody may join any more; returns when those that did have finished.
CLOSING = """\
define internal void @graphc_pool_close() #0 {{
entry:
  %open = atomicrmw and ptr @graphc_pool_state, i64 {closed} seq_cst
  %rounds = load atomic i32, ptr @graphc_pool_rounds monotonic, align 4
  br label %look
look:
  %round = phi i32 [0, %entry], [%later, %idle], [0, %sleep]
  %state = load atomic i64, ptr @graphc_pool_state seq_cst, align 64
  %active = and i64 %state, {active}
  %none = icmp eq i64 %active, 0
  br i1 %none, label %done, label %wait
wait:
  %enough = icmp uge i32 %round, %rounds
  br i1 %enough, label %announce, label %idle
idle:
  call void @{pause}({hint})
  %later = add i32 %round, 1
  br label %look
announce:
  store atomic i32 1, ptr @graphc_pool_waiting seq_cst, align 4
  %again = load atomic i64, ptr @graphc_pool_state seq_cst, align 64
  %left = and i64 %again, {active}
  %gone = icmp eq i64 %left, 0
  br i1 %gone, label %done, label %sleep
sleep:
  %expected = trunc i64 %again to i32
  %slept = call i64 (i64, ...) @syscall(i64 {futex}, ptr @graphc_pool_state, i32 {wait}, i32 %expected{rest})
  br label %look
done:
  store atomic i32 0, ptr @graphc_pool_waiting seq_cst, align 4
  store atomic i32 0, ptr @graphc_pool_busy release, align 64
  ret void
}}
"""

REGION = """\
define {linkage}void @graphc_pool_run(ptr %body, ptr %arguments, i64 %chunks, i64 %threads) #0 {{
entry:
  %mine = call i1 @graphc_pool_take()
  br i1 %mine, label %together, label %alone
together:
  call void @graphc_pool_grow(i64 %threads)
  call void @graphc_pool_open(ptr %body, ptr %arguments, i64 %chunks, i64 %threads)
  call void @graphc_pool_drain(i64 0)
  call void @graphc_pool_close()
  ret void
alone:
  %chunk = phi i64 [0, %entry], [%following, %one]
  %some = icmp ult i64 %chunk, %chunks
  br i1 %some, label %one, label %done
one:
  call void %body(ptr %arguments, i64 %chunk, i64 0)
  %following = add i64 %chunk, 1
  br label %alone
done:
  ret void
}}
"""

FUNCTIONS = {"take": TAKE, "count": CORES, "grow": GROW, "drain": DRAIN, "worker": WORKER, "open": OPENING,
             "close": CLOSING, "run": REGION}
DECLARATIONS = ("i32 @getpid()", "i32 @pthread_create(ptr, ptr, ptr, ptr)", "i32 @pthread_sigmask(i32, ptr, ptr)",
                "i64 @syscall(i64, ...)", "i64 @llvm.ctpop.i64(i64)", "i64 @llvm.umin.i64(i64, i64)",
                "void @llvm.memset.p0.i64(ptr, i8, i64, i1)")


def emit_pool(module: Module, machine: Target, *, exported: bool = False) -> None:
    """Adds the pool to a module: one per process or per library."""
    if machine.architecture not in FUTEX:
        raise Unsupported(f"threads: no pool for {machine.architecture} (stage: code generation)")
    pause, hint, rounds = PAUSE[machine.architecture]
    module.add_global("graphc_pool_state", GLOBALS)
    words = {"futex": FUTEX[machine.architecture], "getaffinity": GETAFFINITY[machine.architecture],
             "pause": pause, "hint": hint, "rounds": rounds, "wait": WAIT,
             "wake": WAKE, "setmask": SIG_SETMASK, "sigset": SIGSET_BYTES, "words": CPU_WORDS, "bytes": 8 * CPU_WORDS,
             "open": OPEN, "closed": ~OPEN, "joined": JOINED, "active": ACTIVE, "generation": GENERATION,
             "most": MOST_JOINED, "one": (1 << JOINED) + 1, "adopting": ADOPTING, "linkage": LINKAGE[exported],
             "rest": ", ptr null, ptr null, i32 0"}
    for name, text in FUNCTIONS.items():
        module.add(f"graphc_pool_{name}", text.format(**words))
    for signature in (*DECLARATIONS, f"void @{pause}({hint.split(' ')[0]})"):
        module.declare(signature)


def pool_text(machine: Target) -> str:
    """A module that is the pool of a process."""
    module = Module()
    emit_pool(module, machine, exported=True)
    return module.text()


def process_pool(kept: Cache) -> Loaded:
    """The pool of this process, which is made once and stays for good, because its workers do."""
    with LOCK:
        if not MADE:
            chosen = HOSTS[HOST]  # LLVM need not be asked what else this processor can do
            text = pool_text(chosen)
            image = kept.made("code", content_key(text, chosen) + "-image", lambda: made_image(text, [RUN], chosen))
            MADE.append(loaded_image(image))
            stay = ctypes.PYFUNCTYPE(None, ctypes.py_object)(("Py_IncRef", ctypes.pythonapi))
            stay(MADE[0].memory)  # beyond the end of the interpreter, when workers may still look for work
        return MADE[0]
