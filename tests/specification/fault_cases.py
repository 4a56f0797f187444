"""A valid specification, and the problem after replacing a part of it.

A case is (old, new, line, field, words of the message). The line is the one in the changed text.
"""

from __future__ import annotations

Case = tuple[str, str, int, str, tuple[str, ...]]

FAULTLESS = """\
apiVersion: circinus/v1
kind: Infrastructure
metadata: {name: home}
spec:
  tiers: [device, edge, cloud]
  sites: [phone, office, island]
  pools:
    - name: phones
      site: phone
      tier: device
      cpus: 2
      memory: 4GiB
      hardware: {class: arm-phone, relative_speed: 0.25}
    - name: servers
      site: office
      tier: edge
      nodes: 3
      cpus: 8
      memory: 32GiB
      gpus: 1
      gpu_memory: 16GiB
      price: $0.40/h
      hardware: {class: x86, relative_speed: 1}
  links:
    - {from: phone, to: office, bandwidth: 40Mbit/s, round_trip: 20ms, price: $0.05/GB}
---
apiVersion: circinus/v1
kind: Pipeline
metadata: {name: meeting}
spec:
  operators:
    - name: denoise
      uses: speech:denoise
      knobs:
        method: [none, gate]
        strength: {choices: [1, 2, 3], ordered: true, only_if: {method: [gate]}}
    - name: recognise
      uses: speech:Recognise
      after: denoise
      knobs:
        - name: model
          choices: [tiny, base]
        - name: beam
          choices: [1, 5]
      cpus: [1, 2]
      batch_sizes: [1, 4]
    - name: redact
      uses: speech:redact
      after: [recognise]
      allowed_tiers: [device, edge]
  metric:
    name: word accuracy
    uses: speech:accuracy
    range: [0, 1]
  dataset:
    uses: speech:clips
    arguments: {noise: 10}
---
apiVersion: circinus/v1
kind: Query
metadata:
  name: calls
spec:
  pipeline: meeting
  source: phone
  rate: 5/s
  weight: 2
  slos:
    - latency p95 <= 800ms
    - accuracy >= 0.9
    - cost: <= $0.50/h
"""

ENVELOPE: list[Case] = [
    ("v1\nkind: Query", "v2\nkind: Query", 59, "apiVersion", ("'circinus/v2'", "'circinus/v1'", "did you mean")),
    ("kind: Query", "kind: Qery", 60, "kind", ("'Qery'", "'Pipeline', 'Infrastructure' or 'Query'", "mean Query?")),
    ("kind: Query", "kind: Deployment", 60, "kind", ("'Deployment'", "'Query'")),
    ("kind: Query\n", "", 59, "kind", ("found nothing", "required")),
    ("apiVersion: circinus/v1\nkind: Query", "kind: Query", 59, "apiVersion", ("found nothing", "required")),
    ("metadata: {name: meeting}", "metadata: {nmae: meeting}", 29, "metadata.nmae", ("field nmae", "mean name?")),
    ("metadata: {name: meeting}", "metadata: {}", 29, "metadata.name", ("nothing", "required")),
    ("metadata: {name: meeting}", "metadata: meeting", 29, "metadata", ("'meeting'", "mapping with the fields name")),
    ("metadata: {name: meeting}", "metadata: {name: meeting, labels: {a: b}}", 29, "metadata.labels", ("labels",)),
    ("  name: calls", "  name: my calls", 62, "metadata.name", ("'my calls'", "letters, digits")),
    ("  name: calls", f"  name: {'x' * 64}", 62, "metadata.name", ("64 characters", "at most 63")),
    ("  name: calls", "  name: 7", 62, "metadata.name", ("found 7", "a name", 'in quotes if text is meant: "7"')),
    ("spec:\n  tiers", "sepc:\n  tiers", 4, "sepc", ("unknown field sepc", "did you mean spec?")),
    ("kind: Query", "kind: Query\nstatus: fine", 61, "status", ("unknown field status", "apiVersion, kind")),
    ("  pipeline: meeting", "  name: calls\n  pipeline: meeting", 64, "spec.name", ("name", "metadata.name")),
]

FIELDS: list[Case] = [
    ("  rate: 5/s", "  rte: 5/s", 66, "spec.rte", ("unknown field rte", "did you mean rate?")),
    ("  rate: 5/s", "  rate_per_s: 5/s", 66, "spec.rate_per_s", ("unknown field rate_per_s", "did you mean rate?")),
    ("  rate: 5/s\n", "", 63, "spec.rate", ("found nothing", "a rate such as 5/s", "required")),
    ("  rate: 5/s", "  rate:", 66, "spec.rate", ("found nothing", "a rate such as 5/s")),
    ("  weight: 2", "  colour: red", 67, "spec.colour", ("unknown field colour", "one of pipeline, source, rate")),
    ("  weight: 2", "  weight: 0", 67, "spec.weight", ("found 0", "more than 0")),
    ("  weight: 2", "  weight: .nan", 67, "spec.weight", ("found NaN", "a finite number")),
    ("  weight: 2", "  weight: true", 67, "spec.weight", ("found true", "a number")),
    ("  weight: 2", "  weight: '2'", 67, "spec.weight", ("found '2'", "a number")),
    ("  weight: 2", "  priority: high", 67, "spec.priority", ("found 'high'", "a whole number")),
    ("  weight: 2", "  late: dorp", 67, "spec.late", ("'dorp'", "'answer' or 'drop'", "mean drop?")),
    (
        "  weight: 2\n  slos:\n    - latency p95 <= 800ms",
        "  late: drop\n  slos:",
        67,
        "spec.late",
        ("found drop", "answer", "a latency SLO beyond which requests are late"),
    ),
    ("  weight: 2", "  pin: phones", 67, "spec.pin", ("found 'phones'", "a mapping by name, or a list")),
    ("  weight: 2", "  pin: {denoise: 3}", 67, "spec.pin.denoise", ("found 3", "text")),
    ("  weight: 2", "  risk: 1", 67, "spec.risk", ("found 1", "less than 1")),
    ("nodes: 3", "nodes: 2.5", 17, "spec.pools[1].nodes", ("found 2.5", "a whole number")),
    ("nodes: 3", "nodes: -1", 17, "spec.pools[1].nodes", ("found -1", "at least 0")),
    ("nodes: 3", "nodes: {min: 1, max: -1}", 17, "spec.pools[1].nodes.max", ("found -1", "at least 0")),
    ("nodes: 3", "nodes: {min: 4, max: 3}", 17, "spec.pools[1].nodes.min", ("found 4", "the greatest number of nodes")),
    ("nodes: 3", "nodes: {min: 4}", 17, "spec.pools[1].nodes.max", ("found nothing", "a whole number")),
    ("nodes: 3", "spot: {price: 3%, interruptions_per_h: 1}", 17, "spec.pools[1].spot.price", ("3%", "a price")),
    ("nodes: 3", "spot: {price: 0, interruptions_per_h: 0}", 17, "spec.pools[1].spot.interruptions_per_h", ("0",)),
    ("nodes: 3", "spot: {price: 0, interruptions_per_h: 1}", 14, "spec.pools[1].node_startup", ("no time", "90s")),
    (
        "nodes: 3",
        "node_startup: 9s\n      spot: {price: $0.50/h, interruptions_per_h: 1}",
        18,
        "spec.pools[1].spot.price",
        ("found $0.50/h", "at most $0.40/h, the pool's price", "lower it"),
    ),
    ("nodes: 3", "private: yes", 17, "spec.pools[1].private", ("found 'yes'", "true or false")),
    ("      cpus: 2\n", "", 8, "spec.pools[0].cpus", ("found nothing", "a number", "required")),
    ("      cpus: 2\n", "      cpus: [2]\n", 11, "spec.pools[0].cpus", ("a list of 1", "a number")),
    ("relative_speed: 0.25", "relative_speed: 0", 13, "spec.pools[0].hardware.relative_speed", ("0", "at least 1e-06")),
    (
        "{class: x86, relative_speed: 1}",
        "{class: x86}",
        23,
        "spec.pools[1].hardware.relative_speed",
        ("nothing", "the speed of x86", "--calibrate"),
    ),
    (
        "relative_speed: 1}",
        "relative_speed: 1, relative_speed_bounds: [0.2, 0.5]}",
        23,
        "spec.pools[1].hardware.relative_speed_bounds",
        ("[0.2, 0.5]", "relative speed 1 between"),
    ),
    (
        "relative_speed: 1}",
        "relative_speed: 1, relative_speed_bounds: 0.5}",
        23,
        "spec.pools[1].hardware.relative_speed_bounds",
        ("0.5", "lowest and the highest speed"),
    ),
    ("relative_speed: 0.25", "speed: 0.25", 13, "spec.pools[0].hardware.speed", ("speed", "class, relative_speed")),
    (
        "hardware: {class: x86, relative_speed: 1}",
        "hardware: x86",
        23,
        "spec.pools[1].hardware",
        ("'x86'", "class, relative_speed"),
    ),
    ("cpus: [1, 2]", "cpus: [1, 0]", 45, "spec.operators[1].cpus[1]", ("found 0", "more than 0")),
    ("cpus: [1, 2]", "cpus: [1, 2, 1.0]", 45, "spec.operators[1].cpus[2]", ("1.0 again", "every number of CPUs once")),
    ("cpus: [1, 2]", "cpus: []", 45, "spec.operators[1].cpus", ("an empty list", "at least 1")),
    ("batch_sizes: [1, 4]", "batch_sizes: 0", 46, "spec.operators[1].batch_sizes", ("found 0", "at least 1")),
    ("batch_sizes: [1, 4]", "batch_sizes: [4, 4]", 46, "spec.operators[1].batch_sizes[1]", ("4 again", "once")),
    ("batch_sizes: [1, 4]", "gpus: -1", 46, "spec.operators[1].gpus", ("found -1", "at least 0")),
    ("batch_sizes: [1, 4]", "batch_wait: 20", 46, "spec.operators[1].batch_wait", ("found 20", "add the unit")),
    ("batch_sizes: [1, 4]", "batch_wait: -1ms", 46, "spec.operators[1].batch_wait", ("found '-1ms'", "a duration")),
    ("batch_sizes: [1, 4]", "batch_waits: 1ms", 46, "spec.operators[1].batch_waits", ("did you mean batch_wait?",)),
    ("choices: [1, 5]", "choices: []", 44, "spec.operators[1].knobs[1].choices", ("empty list", "at least 1")),
    ("choices: [1, 5]", "choices: [1, 5, 1]", 44, "spec.operators[1].knobs[1].choices[2]", ("1 again", "choice once")),
    (
        "choices: [1, 5]",
        "choices: [1, true]",
        44,
        "spec.operators[1].knobs[1].choices[1]",
        ("true again", "equal to 1"),
    ),
    ("choices: [1, 5]", "choices: [1, [5]]", 44, "spec.operators[1].knobs[1].choices[1]", ("a list of 1", "a number")),
    ("choices: [1, 5]", "choices: [1, null]", 44, "spec.operators[1].knobs[1].choices[1]", ("nothing", "a number")),
    (
        "[none, gate]",
        "[none, gate, none]",
        35,
        "spec.operators[0].knobs.method[2]",
        ("'none' again", "every choice once"),
    ),
    ("[none, gate]", "", 35, "spec.operators[0].knobs.method", ("nothing", "required")),
    ("ordered: true", "orderd: true", 36, "spec.operators[0].knobs.strength.orderd", ("mean ordered?",)),
    ("ordered: true", "name: x", 36, "spec.operators[0].knobs.strength.name", ("a second name",)),
    ("        strength:", "        cpus:", 36, "spec.operators[0].knobs.cpus", ("the knob cpus", "another name")),
    ("        - name: beam", "        - name: cpus", 43, "spec.operators[1].knobs[1].name", ("the knob cpus",)),
    ("        - name: beam", "        - name: model", 43, "spec.operators[1].knobs[1].name", ("'model' again",)),
    ("uses: speech:denoise", "uses: speech/denoise", 33, "spec.operators[0].uses", ("`module:attribute`",)),
    ("uses: speech:denoise", "usse: speech:denoise", 33, "spec.operators[0].usse", ("did you mean uses?",)),
    ("batch_sizes: [1, 4]", "emits: several", 46, "spec.operators[1].emits", ("'several'", "'one' or 'many'")),
    (
        "batch_sizes: [1, 4]",
        "emits: many\n      at_most: 0",
        47,
        "spec.operators[1].at_most",
        ("found 0", "at least 1"),
    ),
    ("batch_sizes: [1, 4]", "branches: [sure, sure]", 46, "spec.operators[1].branches[1]", ("'sure' again",)),
    ("batch_sizes: [1, 4]", "branch: sure", 46, "spec.operators[1].branch", ("mean branches?",)),
    ("[recognise]", "[recognise, 3]", 49, "spec.operators[2].after[1]", ("found 3", "an operator, {operator: branch}")),
    ("[recognise]", "[[recognise]]", 49, "spec.operators[2].after[0]", ("a list of 1", "{operator: branch}")),
    ("[recognise]", "[{}]", 49, "spec.operators[2].after[0]", ("an empty mapping", "{operator: branch}")),
    (
        "[recognise]",
        "[{recognise: sure, denoise: sure}]",
        49,
        "spec.operators[2].after[0]",
        ("a mapping", "{operator: branch}"),
    ),
    ("[recognise]", "{any: []}", 49, "spec.operators[2].after.any", ("a mapping", "{any: [...]}")),
    ("[recognise]", "{recognise: 3}", 49, "spec.operators[2].after.recognise", ("a mapping", "{recognise: '3'}")),
    (
        "[recognise]",
        "{recognise: [a, b]}",
        49,
        "spec.operators[2].after.recognise",
        ("name one branch", "{any: [{a: x}, {a: y}]}"),
    ),
    ("[recognise]", "{recognise: a, denoise: b}", 49, "spec.operators[2].after.recognise", ("a list with an entry",)),
    ("[recognise]", "{any: [recognise, recognise]}", 49, "spec.operators[2].after.any[1]", ("recognise again", "once")),
    ("[recognise]", "{any: [recognise, 3]}", 49, "spec.operators[2].after.any[1]", ("found 3", "{operator: branch}")),
    (
        "[recognise]",
        "{any: [{any: [recognise]}]}",
        49,
        "spec.operators[2].after.any[0]",
        ("a mapping", "an operator or {operator: branch}"),
    ),
    ("range: [0, 1]", "range: [1, 0]", 54, "spec.metric.range", ("[1, 0]", "a lowest score below the highest")),
    ("range: [0, 1]", "range: [0, .inf]", 54, "spec.metric.range[1]", ("infinity", "a finite number")),
    ("range: [0, 1]", "range: 1", 54, "spec.metric.range", ("found 1", "such as [0, 1]")),
    ("range: [0, 1]", "direction: max", 54, "spec.metric.direction", ("'max'", "'maximize'", "did you mean maximize?")),
    ("arguments: {noise: 10}", "arguments: {noise: {}}", 57, "spec.dataset.arguments.noise", ("empty mapping",)),
    ("  tiers: [device, edge, cloud]", "  tiers: [device, edge, edge]", 5, "spec.tiers[2]", ("'edge' again",)),
    ("  tiers: [device, edge, cloud]", "  tiers: {}", 5, "spec.tiers", ("an empty mapping", "text")),
    ("      site: phone", "      site: 1", 9, "spec.pools[0].site", ("found 1", "a name")),
]

UNITS: list[Case] = [
    ("20ms", "20", 25, "spec.links[0].round_trip", ("found 20", "a duration such as 150ms", "add the unit")),
    ("20ms", "20.5", 25, "spec.links[0].round_trip", ("found 20.5", "a duration such as 150ms")),
    ("20ms", "20 parsecs", 25, "spec.links[0].round_trip", ("'20 parsecs'", "a duration", "units: us,")),
    ("20ms", "20MS", 25, "spec.links[0].round_trip", ("'20MS'", "did you mean 20ms")),
    ("20ms", "-20ms", 25, "spec.links[0].round_trip", ("'-20ms'", "a duration of at least 0")),
    ("20ms", "1e999s", 25, "spec.links[0].round_trip", ("'1e999s'", "at most")),
    ("20ms", ".nan", 25, "spec.links[0].round_trip", ("found NaN", "a duration")),
    ("20ms", "true", 25, "spec.links[0].round_trip", ("found true", "a duration")),
    ("20ms", "soon", 25, "spec.links[0].round_trip", ("'soon'", "a duration")),
    ("40Mbit/s", "0", 25, "spec.links[0].bandwidth", ("found 0", "more than 0")),
    ("40Mbit/s", "40Mb/s", 25, "spec.links[0].bandwidth", ("'40Mb/s'", "mean 40MB/s", "or 40Mbit/s?")),
    ("40Mbit/s", "40MB", 25, "spec.links[0].bandwidth", ("'40MB'", "a bandwidth such as", "did you mean 40MB/s")),
    ("$0.05/GB", "0.05", 25, "spec.links[0].price", ("found 0.05", "a price of traffic such as $0.05/GB")),
    ("$0.05/GB", "$0.05/h", 25, "spec.links[0].price", ("'$0.05/h'", "$0.05/GB")),
    ("$0.05/GB", "$0/GB, reverse_price: 1", 25, "spec.links[0].reverse_price", ("found 1", "add the unit")),
    ("$0.40/h", "0.40/h", 22, "spec.pools[1].price", ("'0.40/h'", "a price such as $0.40/h")),
    ("$0.40/h", "$0.40", 22, "spec.pools[1].price", ("'$0.40'", "a price such as $0.40/h")),
    ("memory: 4GiB", "memory: 4gib", 12, "spec.pools[0].memory", ("'4gib'", "a size", "did you mean 4GiB")),
    ("memory: 4GiB", "memory: 0", 12, "spec.pools[0].memory", ("found 0", "more than 0")),
    ("memory: 4GiB", "memory: 4s", 12, "spec.pools[0].memory", ("'4s'", "a size such as 8GiB")),
    ("rate: 5/s", "rate: 5", 66, "spec.rate", ("found 5", "a rate such as 5/s")),
    ("rate: 5/s", "rate: 0/s", 66, "spec.rate", ("'0/s'", "at least 1e-09")),
    ("rate: 5/s", "rate: -1/s", 66, "spec.rate", ("'-1/s'", "at least 1e-09")),
]

OBJECTIVES: list[Case] = [
    ("latency p95", "letency p95", 69, "spec.slos[0]", ("unknown field letency", "did you mean latency?")),
    ("latency p95 <= 800ms", "p95 <= 800ms", 69, "spec.slos[0]", ("p95", "one of latency, accuracy, cost")),
    ("latency p95 <= 800ms", "<= 800ms", 69, "spec.slos[0]", ("'<= 800ms'", "an SLO such as")),
    ("latency p95 <= 800ms", "latency p95 >= 800ms", 69, "spec.slos[0]", (">= 800ms", "p95 <= 800ms")),
    ("latency p95 <= 800ms", "latency p95 <= 800", 69, "spec.slos[0]", ("'800'", "a duration such as 150ms")),
    ("latency p95 <= 800ms", "latency p95 <= 0ms", 69, "spec.slos[0]", ("'0ms'", "more than 0")),
    ("latency p95 <= 800ms", "latency p100 <= 800ms", 69, "spec.slos[0]", ("100", "less than 100")),
    ("latency p95 <= 800ms", "latency: mean <= 800ms", 69, "spec.slos[0].latency", ("'mean <= 800ms'", "p95")),
    ("latency p95 <= 800ms", "latency: 800ms", 69, "spec.slos[0].latency", ("'800ms'", "p95 <= 800ms")),
    ("latency p95 <= 800ms", "latency: {percentile: 95}", 69, "spec.slos[0].latency.limit", ("nothing", "a duration")),
    ("accuracy >= 0.9", "accuracy <= 0.9", 70, "spec.slos[1]", ("found <=", ">=", "word accuracy", "maximized")),
    ("accuracy >= 0.9", "accuracy >= 9", 70, "spec.slos[1]", ("found 9", "from 0 to 1", "word accuracy")),
    ("accuracy >= 0.9", "accuracy >= high", 70, "spec.slos[1]", ("'high'", "percentage such as 90%")),
    ("accuracy >= 0.9", "latency p50 <= 1s", 70, "spec.slos[1]", ("a second SLO for latency", "at most one")),
    ("cost: <= $0.50/h", "cost: <= $0.50", 71, "spec.slos[2].cost", ("'$0.50'", "a price such as $0.40/h")),
    ("cost: <= $0.50/h", "cost: '>= $0.50/h'", 71, "spec.slos[2].cost", ("'>= $0.50/h'", "<= $0.50/h")),
    ("cost: <= $0.50/h", "cost: <= $-1/h", 71, "spec.slos[2].cost", ("'$-1/h'", "at least 0")),
    ("cost: <= $0.50/h", "7", 71, "spec.slos[2]", ("found 7", "an SLO such as")),
]

ARRIVALS: list[Case] = [
    ("  weight: 2", "  arrivals: perodic", 67, "spec.arrivals", ("'perodic'", "poisson, periodic", "mean periodic?")),
    ("  weight: 2", "  arrivals: [bursty]", 67, "spec.arrivals", ("a list of 1", "a mapping with the field kind")),
    ("  weight: 2", "  arrivals:", 67, "spec.arrivals", ("found nothing", "one of poisson")),
    ("  weight: 2", "  arrivals: {}", 67, "spec.arrivals.kind", ("found nothing", "one of poisson", "required")),
    ("  weight: 2", "  arrivals: {jitter: 5ms}", 67, "spec.arrivals.kind", ("found nothing", "required")),
    ("  weight: 2", "  arrivals: {kind: burst}", 67, "spec.arrivals.kind", ("'burst'", "mean bursty?")),
    ("  weight: 2", "  arrivals: {kind: 3}", 67, "spec.arrivals.kind", ("found 3", "one of poisson")),
    ("  weight: 2", "  arrivals: {kind: poisson, peak: 2}", 67, "spec.arrivals.peak", ("unknown field peak", "kind")),
    (
        "  weight: 2",
        "  arrivals:\n    kind: periodic\n    jiter: 5ms",
        69,
        "spec.arrivals.jiter",
        ("unknown field jiter", "mean jitter?"),
    ),
    ("  weight: 2", "  arrivals: {kind: periodic, jitter: 5}", 67, "spec.arrivals.jitter", ("found 5", "a duration")),
    ("  weight: 2", "  arrivals: {kind: periodic, jitter_s: 5ms}", 67, "spec.arrivals.jitter_s", ("mean jitter?",)),
    (
        "  weight: 2",
        "  arrivals: {kind: periodic, jitter: 101ms}",
        67,
        "spec.arrivals.jitter",
        ("101ms", "at most 100ms", "half of the time between two arrivals at 5/s"),
    ),
    ("  weight: 2", "  arrivals: {kind: bursty, peak: 1}", 67, "spec.arrivals.peak", ("found 1", "more than 1")),
    ("  weight: 2", "  arrivals: {kind: bursty, peak: 4x}", 67, "spec.arrivals.peak", ("'4x'", "a number")),
    ("  weight: 2", "  arrivals: {kind: bursty, burst: 0s}", 67, "spec.arrivals.burst", ("'0s'", "more than 0")),
    ("  weight: 2", "  arrivals: {kind: bursty, every: 10}", 67, "spec.arrivals.every", ("found 10", "a duration")),
    (
        "  weight: 2",
        "  arrivals:\n    kind: bursty\n    burst: 60s\n    every: 1min",
        70,
        "spec.arrivals.every",
        ("60s", "more than the 60s that a burst lasts"),
    ),
    (
        "  weight: 2",
        "  arrivals:\n    kind: bursty\n    peak: 5\n    burst: 20s",
        69,
        "spec.arrivals.peak",
        ("found 5", "at most 3", "all arrivals are in bursts of 20s every 60s"),
    ),
    ("  weight: 2", "  arrivals: recorded", 67, "spec.arrivals", ("nothing", "the path of a CSV file", "required")),
    (
        "  weight: 2",
        "  arrivals: {kind: recorded, file: 3}",
        67,
        "spec.arrivals.file",
        ("found 3", "the path of a CSV"),
    ),
    (
        "  weight: 2",
        "  arrivals: {kind: recorded, file: absent.csv}",
        67,
        "spec.arrivals.file",
        ("'absent.csv', which does not exist", "a CSV file (absent.csv) with the column time_s"),
    ),
    (
        "  weight: 2",
        "  arrivals: {kind: recorded, file: a.csv, times_s: [1, 2]}",
        67,
        "spec.arrivals.times_s",
        ("a list of times", "named by `file`"),
    ),
]

REFERENCES: list[Case] = [
    (
        "after: denoise",
        "after: denoize",
        39,
        "spec.operators[1].after",
        ("'denoize'", "(denoise, redact)", "mean denoise?"),
    ),
    ("[recognise]", "[recognise, x]", 49, "spec.operators[2].after[1]", ("'x'", "an operator of this pipeline")),
    ("[recognise]", "[recognise, recognise]", 49, "spec.operators[2].after[1]", ("'recognise' again",)),
    ("after: denoise", "after: recognise", 39, "spec.operators[1].after", ("itself", "another operator")),
    (
        "after: denoise",
        "after: redact",
        39,
        "spec.operators[1].after",
        ("recognise -> redact -> recognise", "no cycle"),
    ),
    ("- name: redact", "- name: denoise", 47, "spec.operators[2].name", ("'denoise' again", "operators[0]")),
    ("{method: [gate]}", "{methd: [gate]}", 36, "spec.operators[0].knobs.strength.only_if.methd", ("mean method?",)),
    (
        "{method: [gate]}",
        "{method: gat}",
        36,
        "spec.operators[0].knobs.strength.only_if.method",
        ("'gat'", "mean gate?"),
    ),
    ("{method: [gate]}", "{strength: 1}", 36, "spec.operators[0].knobs.strength.only_if.strength", ("itself",)),
    (
        "method: [none, gate]",
        "method: {choices: [none, gate], only_if: {strength: 1}}",
        35,
        "spec.operators[0].knobs.method.only_if",
        ("the cycle", "strength", "no cycle"),
    ),
    ("[device, edge]", "[device, egde]", 50, "spec.operators[2].allowed_tiers[1]", ("'egde'", "mean edge?")),
    (
        "[device, edge]",
        "cloud",
        50,
        "spec.operators[2].allowed_tiers",
        ("cloud", "a tier that has a pool (device, edge)"),
    ),
    ("[device, edge]", "device\n      gpus: 1", 51, "spec.operators[2].gpus", ("GPUs: 1", "at most 0", "on device")),
    (
        "[device, edge]",
        "device\n      cpus: [4, 8]",
        51,
        "spec.operators[2].cpus",
        ("CPUs: 4", "at most 2", "on device"),
    ),
    (
        "batch_sizes: [1, 4]",
        "gpu_memory_cases: [{only_if: {modell: tiny}, size: 1GiB}]",
        46,
        "spec.operators[1].gpu_memory_cases[0].only_if.modell",
        ("'modell'", "(model, beam)", "mean model?"),
    ),
    (
        "batch_sizes: [1, 4]",
        "gpu_memory_cases: [{only_if: {model: huge}, size: 1GiB}]",
        46,
        "spec.operators[1].gpu_memory_cases[0].only_if.model",
        ("'huge'", "a choice of the knob model"),
    ),
    ("batch_sizes: [1, 4]", "gpu_memory: 24GiB", 46, "spec.operators[1].gpu_memory", ("24GiB", "at most 16GiB")),
    ("      site: phone", "      site: phoen", 9, "spec.pools[0].site", ("'phoen'", "did you mean phone?")),
    ("      tier: device", "      tier: devices", 10, "spec.pools[0].tier", ("'devices'", "did you mean device?")),
    ("- name: servers", "- name: phones", 14, "spec.pools[1].name", ("'phones' again", "pools[0]")),
    ("[phone, office, island]", "[phone, office, phone]", 6, "spec.sites[2]", ("'phone' again", "sites[0]")),
    ("{from: phone", "{from: phon", 25, "spec.links[0].from", ("'phon'", "did you mean phone?")),
    ("to: office", "to: phone", 25, "spec.links[0].to", ("'phone' at both ends", "two sites")),
    (
        "  links:\n",
        "  links:\n    - {from: office, to: phone, bandwidth: 1Mbit/s}\n",
        26,
        "spec.links[1]",
        ("a second link between office and phone", "links[0]"),
    ),
    ("pipeline: meeting", "pipeline: meetings", 64, "spec.pipeline", ("'meetings'", "did you mean meeting?")),
    ("  links:\n", "  usable_link_share: 1\n  links:\n", 24, "spec.usable_link_share", ("found 1", "less than 1")),
    (
        "  links:\n",
        "  utilization_targets: [0.5, 50%]\n  links:\n",
        24,
        "spec.utilization_targets[1]",
        ("0.5 again", "every target once"),
    ),
    ("  links:\n", "  tenants: {ward: 1.2}\n  links:\n", 24, "spec.tenants.ward", ("found 1.2", "at most 1")),
    ("nodes: 3", "headroom: 20", 17, "spec.pools[1].headroom", ("found 20", "less than 1", 'did you mean "20%"?')),
    ("source: phone", "source: phones", 65, "spec.source", ("'phones'", "(phone, office, island)", "mean phone?")),
    ("source: phone", "source: island", 65, "spec.source", ("'island'", "no pool can be reached")),
    ("  weight: 2", "  tenant: ward", 67, "spec.tenant", ("'ward'", "there is none", "list the tenants")),
    ("  weight: 2", "  pin: {denoice: phones}", 67, "spec.pin.denoice", ("'denoice'", "mean denoise?")),
    ("  weight: 2", "  pin: {denoise: phone}", 67, "spec.pin.denoise", ("'phone'", "mean phones?")),
    (
        "  weight: 2",
        "  pin: {denoise: {knobs: {methode: gate}}}",
        67,
        "spec.pin.denoise.knobs.methode",
        ("'methode'", "(method, strength)", "mean method?"),
    ),
    (
        "  weight: 2",
        "  pin: {denoise: {knobs: {method: gates}}}",
        67,
        "spec.pin.denoise.knobs.method",
        ("'gates'", "a choice of the knob method"),
    ),
]

_REDACT = "\n    - name: redact\n      uses: speech:redact\n"
_AFTER = f"batch_sizes: [1, 4]{_REDACT}      after: [recognise]"
"""Last field of `recognise`, and `redact` behind it."""


def _behind(last: str, after: str, more: str = "") -> tuple[str, str]:
    """Return the change of the last field of `recognise`, and of the inputs of `redact`."""
    return _AFTER, f"{last}{_REDACT}      after: {after}{more}"


_TAKES = "branches: [sure, unsure]"
_REDACT_AFTER = "spec.operators[2].after"

FAN_OUTS: list[Case] = [
    (*_behind(_TAKES, "{recognise: unsur}"), 49, f"{_REDACT_AFTER}.recognise", ("'unsur'", "mean unsure?")),
    (*_behind(_TAKES, "[{recognise: sure}, {recognise: x}]"), 49, f"{_REDACT_AFTER}[1].recognise", ("(sure, unsure)",)),
    (*_behind(_TAKES, "{any: [denoise, {recognise: sur}]}"), 49, f"{_REDACT_AFTER}.any[1].recognise", ("mean sure?",)),
    (
        *("[recognise]", "{recognise: sure}", 49, f"{_REDACT_AFTER}.recognise"),
        ("a branch of recognise (there is none)", "`branches`"),
    ),
    ("[recognise]", "{recognize: sure}", 49, f"{_REDACT_AFTER}.recognize", ("'recognize'", "mean recognise?")),
    ("[recognise]", "{any: [recognise, recognize]}", 49, f"{_REDACT_AFTER}.any[1]", ("mean recognise?",)),
    ("[recognise]", "{any: recognise}", 49, f"{_REDACT_AFTER}.any", ("'any'", "an operator of this pipeline")),
    (
        *("[recognise]", "[recognise]\n      gather: true", 50, "spec.operators[2].gather"),
        ("no input comes from a fan-out", "one that emits many", "leave out `gather`"),
    ),
    (
        *_behind("emits: many", "[recognise, denoise]"),
        *(49, f"{_REDACT_AFTER}[1]"),
        ("denoise, which comes once for each item", "once for each element of recognise", "`gather: true`"),
    ),
    (
        *_behind("emits: many", "{any: [recognise, denoise]}"),
        *(49, f"{_REDACT_AFTER}.any"),
        ("denoise, which comes once for each item", "once for each element of recognise"),
    ),
    (
        *_behind("emits: many", "{any: [denoise, recognise]}", "\n      gather: true"),
        *(49, f"{_REDACT_AFTER}.any"),
        ("denoise, which comes once for each item", "an output that comes once for each element of recognise"),
    ),
    (
        *_behind(_TAKES, "[{recognise: sure}, {recognise: unsure}]"),
        *(49, f"{_REDACT_AFTER}[1]"),
        ("never comes with the others", "{any: [...]}"),
    ),
    (
        *("[recognise]", "{any: [recognise, denoise]}", 49, f"{_REDACT_AFTER}.any[1]"),
        ("denoise, which may come with another", "only one comes", "name their branches"),
    ),
    (
        *_behind(_TAKES, "{any: [{recognise: sure}, recognise]}"),
        *(49, f"{_REDACT_AFTER}.any[1]"),
        ("recognise, which may come with another",),
    ),
    (
        *_behind(_TAKES, "{any: [{recognise: sure}, {recognise: unsure}, denoise]}"),
        *(49, f"{_REDACT_AFTER}.any[2]"),
        ("denoise, which may come with another",),
    ),
    ("batch_sizes: [1, 4]", "at_most: 5", 46, "spec.operators[1].at_most", ("maximum number", "`emits: many`")),
    (
        *("batch_sizes: [1, 4]", "emits: one\n      at_most: 5", 47, "spec.operators[1].at_most"),
        ("maximum number", "`emits: many`"),
    ),
]

SYNTAX: list[Case] = [
    ("  rate: 5/s", "  rate: 5/s\n  rate: 6/s", 67, "spec.rate", ("rate again (first on line 66)", "every key once")),
    ("  rate: 5/s", "  rate: a: b", 66, "(YAML)", ("mapping values are not allowed", "valid YAML", "quotes")),
    ("  rate: 5/s", "\trate: 5/s", 66, "(YAML)", ("'\\t'", "valid YAML", "indent with spaces")),
    ("cost: <=", "cost: >=", 71, "(YAML)", ("found '='", "chomping or indentation", "begins with `>` in quotes")),
    ("  rate: 5/s", "  rate: [5", 67, "(YAML)", ("found ':'", "expected ',' or ']'")),
    ("  rate: 5/s", "  rate: @5", 66, "(YAML)", ("'@'", "in quotes")),
    ("  rate: 5/s", "  rate: *fast", 66, "(YAML)", ("undefined alias 'fast'", "valid YAML")),
    ("  rate: 5/s", "  rate: !rate 5/s", 66, "spec.rate", ("the tag !rate", "without tags")),
    ("  rate: 5/s", "  rate: 5/s\n  ? [a, b]\n  : 1", 67, "spec", ("a key that is a list", "text")),
    ("  rate: 5/s", "  rate: 5/s\x07", 66, "(YAML)", ("U+0007", "printable")),
    ("  rate: 5/s", "  rate: 5/s\n  <<: 3", 67, "spec.<<", ("found 3", "an anchored mapping")),
]

CASES = [*ENVELOPE, *FIELDS, *UNITS, *OBJECTIVES, *ARRIVALS, *REFERENCES, *FAN_OUTS, *SYNTAX]
