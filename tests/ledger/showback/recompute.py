"""Computes a month again from nothing but JSON lines and the policy file: 2026-10, and its CSV.

It shares no code with Headgate. `python tests/ledger/showback/recompute.py POLICY RECORDS MONTH`
prints the numbers of each tenant, user, model and pool as JSON.
"""

import json
import sys
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from pathlib import Path
from zoneinfo import ZoneInfo

from ruamel.yaml import YAML

NANO = 10**9
BILLED = ("usage", "partial", "estimate")
KINDS = ("input", "cached", "output", "reasoning", "hits", "hit_tokens")


def number(value):
    return Decimal(str(value or 0))


def bounds(month, zone):
    year, number_of_month = map(int, month.split("-"))
    after = (year + number_of_month // 12, number_of_month % 12 + 1)
    begin = datetime(year, number_of_month, 1, tzinfo=ZoneInfo(zone))
    return begin.astimezone(UTC), datetime(*after, 1, tzinfo=ZoneInfo(zone)).astimezone(UTC)


def read(path, begin, end):
    """The records that ended in the month, each once."""
    seen = set()
    with open(path) as file:
        for line in file:
            one = json.loads(line, parse_float=Decimal)
            start = datetime.fromisoformat(one["time"])
            ended = start + timedelta(microseconds=round(one["duration_s"] * 1_000_000))
            if begin <= ended < end and (one["request_id"], ended) not in seen:
                seen.add((one["request_id"], ended))
                yield one, ended


def price_of(policy, model, ended):
    """The prices of a model when the request ended, as fractions of a nano of the currency."""
    entry = policy["models"][model]
    listed = entry.get("prices") or policy["models"][entry["base"]]["prices"]
    if not isinstance(listed, list):
        listed = [listed]
    found = None
    for one in listed:
        day = one.get("from")
        if day is None or datetime.fromisoformat(f"{day}T00:00:00+00:00") <= ended:
            found = one
    return kinds_of(found)


def kinds_of(entry):
    million = Fraction(NANO, 10**6)
    output = Fraction(number(entry["output"])) * million
    per = {"input": Fraction(number(entry["input"])) * million, "output": output}
    cached, reasoning = entry.get("cached_input"), entry.get("reasoning")
    per["cached"] = per["input"] if cached is None else Fraction(number(cached)) * million
    per["reasoning"] = output if reasoning is None else Fraction(number(reasoning)) * million
    kept = entry.get("cached_answer")
    per["hit_tokens"] = per["cached"] if kept is None else Fraction(number(kept)) * million
    per["request"] = Fraction(number(entry.get("request"))) * NANO
    return per


def up(fraction):
    return -(-fraction.numerator // fraction.denominator)


def cost(per, tokens, requests):
    exact = sum(per[kind] * tokens[kind] for kind in ("input", "cached", "hit_tokens"))
    exact += per["output"] * (tokens["output"] - tokens["reasoning"])
    return up(exact + per["reasoning"] * tokens["reasoning"] + per["request"] * requests)


def tokens_of(one):
    if one["cache"] == "hit":
        kept = one["prompt_tokens"] + one["completion_tokens"]
        return {**dict.fromkeys(KINDS, 0), "hits": 1, "hit_tokens": kept}
    cached = one["cached_tokens"] or 0
    return {
        "input": one["prompt_tokens"] - cached,
        "cached": cached,
        "output": one["completion_tokens"],
        "reasoning": one["reasoning_tokens"] or 0,
        "hits": 0,
        "hit_tokens": 0,
    }


def reason(one):
    if one["limit"] is not None:
        return "limit"
    if one["status"] in (401, 403):
        return "access"
    if one["ended"] == "client_left" or one["status"] is None:
        return "aborted"
    if one["status"] // 100 == 4:
        return "request"
    return "failed" if one["status"] >= 500 or one["ended"] == "upstream_broke" else "free"


def amount_of(pool, month, hours):
    if pool["kind"] == "owned":
        power = number(pool.get("power_kw")) * hours * number(pool.get("kwh_price"))
        exact = number(pool["hardware"]) / pool["hardware_months"] + power
    else:
        pods = pool.get("pod_hours", {}).get(month, pool.get("pods", 0) * hours)
        exact = number(pods) * number(pool["hour_price"])
    return int(exact.quantize(Decimal("0.01"), ROUND_HALF_EVEN) * NANO)


def split(total, weights):
    """Shares by largest remainder; of equal remainders the first gets more."""
    whole = sum(weights)
    shares = [total * one // whole for one in weights]
    order = sorted(range(len(weights)), key=lambda at: -(total * weights[at] % whole))
    for at in order[: total - sum(shares)]:
        shares[at] += 1
    return shares


def pools(policy, month, hours, works):
    """For each pool its amount and used part; for each line of `works` its used and idle part."""
    amounts = {name: amount_of(pool, month, hours) for name, pool in policy["cost_pools"].items()}
    used_of, idle_of, bills = [0] * len(works), [0] * len(works), {}
    for name, pool in policy["cost_pools"].items():
        work = [one if base in pool["models"] else 0 for base, one in works]
        mine = 0
        for base, one in works:
            if base in pool["models"]:
                with_it = [n for n, p in policy["cost_pools"].items() if base in p["models"]]
                mine += one * amounts[name] // sum(amounts[n] for n in with_it)
        used = amounts[name] if mine else 0
        if "full_tokens_per_s" in pool and mine:
            machine_hours = Fraction(pool["pods"] * hours)
            full = int(machine_hours * 3600) * pool["full_tokens_per_s"] * 1000
            cent = NANO // 100
            used = min(used, amounts[name] * mine // full // cent * cent)
        bills[name] = [amounts[name], used]
        if mine:
            for at, part in enumerate(split(used, work)):
                used_of[at] += part
            for at, part in enumerate(split(amounts[name] - used, work)):
                idle_of[at] += part
    return bills, used_of, idle_of


def cents(amounts):
    """Amounts by name in whole cents that add up to the rounded sum, by largest remainder."""
    cent = NANO // 100
    parts = {name: amount // cent for name, amount in amounts.items()}
    missing = (sum(amounts.values()) + cent // 2) // cent - sum(parts.values())
    for name in sorted(amounts, key=lambda one: -(amounts[one] % cent))[:missing]:
        parts[name] += 1
    return parts


def shown(groups):
    """The rows of the console, the dearest first: counts, then money in cents that add up."""
    rows = sorted(groups.items(), key=lambda one: (-one[1]["cost"], one[0]))
    sums = (("cost",), ("used",), ("idle",), ("used", "idle"))
    money = [cents({name: sum(line[one] for one in of) for name, line in rows}) for of in sums]
    counts = ("requests", "input", "cached", "output")
    return {
        name: [*(line[one] for one in counts), *(column[name] for column in money)]
        for name, line in rows
    }


def work_of(line):
    return 1000 * line["input"] + 100 * line["cached"] + 4000 * line["output"]


def main(policy_path, records_path, month):
    policy = YAML(typ="safe").load(Path(policy_path))
    settings = policy["showback"]
    begin, end = bounds(month, settings["timezone"])
    bill_begin, bill_end = bounds(month, settings["bill_timezone"])
    hours = int((bill_end - bill_begin).total_seconds()) // 3600
    lines = defaultdict(lambda: defaultdict(int))
    refused = defaultdict(int)
    for one, ended in read(records_path, begin, end):
        if one["source"] not in BILLED:
            refused[reason(one)] += 1
            continue
        key = one["tenant"], one["user"], one["model"], one["base"], one["price_version"] or ""
        line, tokens = lines[key], tokens_of(one)
        line["requests"] += 1
        for kind in KINDS:
            line[kind] += tokens[kind]
        line["cost"] += cost(price_of(policy, one["model"], ended), tokens, 1)
    keys = sorted(lines)
    works = [(key[3], work_of(lines[key])) for key in keys]
    bills, used, idle = pools(policy, month, hours, works)
    groups = {by: defaultdict(lambda: defaultdict(int)) for by in ("tenant", "user", "model")}
    for at, key in enumerate(keys):
        line = {**lines[key], "used": used[at], "idle": idle[at]}
        for by, name in zip(("tenant", "user", "model"), key, strict=False):
            for measure, value in line.items():
                groups[by][name][measure] += value
    console = {by: shown(groups[by]) for by in ("tenant", "model")}
    return {"groups": groups, "pools": bills, "not_billed": refused, "console": console}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:]), sort_keys=True))
