"""A Dockerfile as its stages and their instructions; as much of the format as ours use."""

import re
from dataclasses import dataclass, field


@dataclass
class Stage:
    base: str
    name: str
    steps: list = field(default_factory=list)

    def all(self, instruction):
        return [rest for word, rest in self.steps if word == instruction]

    def last(self, instruction):
        return (self.all(instruction) or [""])[-1]

    def environment(self):
        return dict(pair.split("=", 1) for rest in self.all("ENV") for pair in rest.split())


def parse(text):
    """Arguments stand for their defaults, but where an image is built with BAKEOFF_COMMIT, which
    has none."""
    stages = []
    defaults = dict(re.findall(r"^ARG (\w+)=(\S+)$", text, flags=re.M))
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.M).replace("\\\n", " ")
    text = re.sub(r"\$(\w+)", lambda m: defaults.get(m[1], m[0]), text)
    for line in filter(None, (line.strip() for line in text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            stages.append(Stage(base, name or f"#{len(stages)}"))
        elif stages:
            stages[-1].steps.append((word, rest))
    return stages


def problems(text, features, binaries, known_variables, health_port):
    """What is wrong with a Dockerfile of ours, as sentences."""
    stages = parse(text)
    names = {stage.name for stage in stages}
    for stage in stages:
        if stage.base not in names and not re.fullmatch(
            r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}", stage.base
        ):
            yield f"the base {stage.base} is not pinned by tag and digest"
        for command in stage.all("RUN"):
            for install in re.findall(r"cargo install .*", command):
                if "--locked" not in install or "--version" not in install:
                    yield f"`{install}` is not pinned"
            package = re.search(r"--package bakeoff-(\w+)", command)
            if package:
                if "--locked" not in command or "--release" not in command:
                    yield f"`{command}` is no locked release build"
                asked = re.search(r"--features ([\w,-]+)", command)
                for feature in asked[1].split(",") if asked else []:
                    if feature not in features[package[1]]:
                        yield f"bakeoff-{package[1]} has no feature {feature}"
    cooked = [c for s in stages for c in s.all("RUN") if "chef cook" in c]
    built = [c for s in stages for c in s.all("RUN") if "cargo build" in c]
    if [c.split("--package")[1] for c in cooked] != [
        c.split("--package")[1].split(" && ")[0] for c in built
    ] or not built:
        yield "dependencies are cooked with other packages or features than the build has"
    final = stages[-1]
    if final.all("RUN") or final.all("ADD"):
        yield "the image itself runs or adds something"
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", final.last("USER")):
        yield "the image has no numeric user, or runs as root"
    program = re.search(r'\["(\w+)"', final.last("ENTRYPOINT"))
    program = program[1] if program else ""
    copied = re.findall(
        r"--from=build /usr/local/bin/(\w+) /usr/local/bin/(\w+)", " ".join(final.all("COPY"))
    )
    if (
        program not in binaries
        or copied != [(program, program)]
        or f"cp target/release/{program} " not in built[-1]
    ):
        yield f"the image copies {copied} and starts {program}"
    listed = [c for s in stages for c in s.all("RUN") if "cargo about" in c]
    for command in built:
        features = re.findall(r"--no-default-features|--features \S+", command)
        if (
            not listed
            or re.findall(r"--no-default-features|--features \S+", listed[-1]) != features
        ):
            yield "the licences are listed for other features than the build has"
    if not any(
        "LICENSE" in c and "NOTICE" in c and "THIRD-PARTY.txt" in c for c in final.all("COPY")
    ):
        yield "the image holds no licences"
    if "org.opencontainers.image.revision" not in " ".join(final.all("LABEL")):
        yield "no label tells the commit"
    if not any("ca-certificates.crt" in copy for copy in final.all("COPY")):
        yield "the image has no certificate authorities"
    for name in final.environment():
        if name not in known_variables and not name.startswith("NVIDIA_"):
            yield f"the program does not know {name}"
    if program == "worker":
        if final.environment().get("BAKEOFF_HEALTH_ADDR") != f"0.0.0.0:{health_port}" or final.last(
            "EXPOSE"
        ) != str(health_port):
            yield "the health port is not exposed"
        if not final.environment().get("BAKEOFF_DEVICE"):
            yield "the device is left to chance"
