"""Runs one action on generated code, inside the sandbox, and tells how it ended.

The job comes as one line of JSON on stdin. What is told goes to stdout on lines that start with the
job's token, which the generated code has no honest way to know: a program that ends the interpreter
early, with whatever exit code, has told nothing, and has not passed.
"""

import importlib
import json
import os
import resource
import sys
import traceback


class Job:
    def __init__(self, fields):
        self.__dict__.update(fields)


def main():
    job = Job(json.loads(sys.stdin.readline()))
    tell(1, job.token, {"started": True})
    out = take_limits(job)
    action = job.action
    if action["kind"] == "command":
        # The exit code of the command is the answer.
        try:
            os.execvpe(action["argv"][0], action["argv"], os.environ)
        except OSError as error:
            tell(out, job.token, {"missing_command": action["argv"][0], "detail": str(error)})
            os._exit(1)
    try:
        ended = ACTIONS[action["kind"]](action)
    except BaseException as error:  # whatever the code raises, SystemExit too
        ended = describe(error)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:  # the code may have closed or replaced them
        pass
    tell(out, job.token, ended)
    # Neither atexit handlers nor threads of the code have a say in how this ends.
    os._exit(0)


def tell(out, token, fields):
    os.write(out, f"\n{token} {json.dumps(fields)}\n".encode())


def take_limits(job):
    """Returns where to tell: the code may close or replace stdout, a command does not inherit this."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    out = os.dup2(1, 3, inheritable=False)
    os.closerange(4, 65536)
    for name, (soft, hard) in job.limits.items():
        resource.setrlimit(getattr(resource, name), (soft, hard))
    if job.uid is not None:
        os.setgroups([])
        os.setresgid(job.uid, job.uid, job.uid)
        os.setresuid(job.uid, job.uid, job.uid)
    os.chdir(job.folder)
    os.environ.clear()
    os.environ.update(job.environment)
    sys.path.insert(0, job.folder)
    sys.dont_write_bytecode = True
    return out


def read(name):
    with open(name, encoding="utf-8") as file:
        return file.read()


def probe(_action):
    """Whether the walls stand."""
    problems = []
    if os.getuid() == 0:
        problems.append("it runs as root")
    with open("/proc/net/route", encoding="ascii") as routes:
        if len(routes.readlines()) > 1:
            problems.append("it has a network route")
    try:
        os.close(os.open("/written", os.O_WRONLY | os.O_CREAT))
        problems.append("its root folder can be written")
    except OSError:
        pass
    try:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    except OSError:
        # Before Linux 5.14, processes outside of the sandbox count too.
        problems.append("its bound on processes counts those of other programs")
    return {"passed": not problems, "detail": ", ".join(problems)}


def compile_only(_action):
    compile(read("solution.py"), "solution.py", "exec", dont_inherit=True)
    return {"passed": True, "detail": ""}


def import_module(_action):
    importlib.import_module("solution")
    return {"passed": True, "detail": ""}


def task(action):
    """In the manner of HumanEval: the test defines `check(candidate)`."""
    names = {"__name__": "solution"}
    exec(compile(read("solution.py"), "solution.py", "exec", dont_inherit=True), names)
    candidate = names.get(action["entry_point"])
    if not callable(candidate):
        return {"passed": False, "detail": f"the code defines no function {action['entry_point']}"}
    exec(compile(action["test"], "test", "exec", dont_inherit=True), names)
    names["check"](candidate)
    return {"passed": True, "detail": ""}


ACTIONS = {"probe": probe, "compile": compile_only, "import": import_module, "task": task}


def describe(error):
    if isinstance(error, SystemExit):
        return {"passed": False, "detail": "the code ends the interpreter (SystemExit)"}
    try:
        ended = {"passed": False, "detail": detail(error)}
    except BaseException:  # a hostile __str__, or no memory left
        return {"passed": False, "detail": type(error).__name__}
    if isinstance(error, ModuleNotFoundError) and isinstance(error.name, str):
        ended["missing_module"] = error.name
    return ended


def detail(error):
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if os.path.basename(f.filename) in ("solution.py", "test")]
    where = f" ({os.path.basename(own[-1].filename)}, line {own[-1].lineno})" if own else ""
    return text[-600:] + where


main()
