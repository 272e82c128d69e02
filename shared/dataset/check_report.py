"""The report of `emit check` as one screen of text."""

from typing import Any

from shared.text import counted, first_few

BARS = " ▁▂▃▄▅▆▇█"
NO_LABELS = (
    "none: `emit run own` and `emit fuse` need a table with columns of numbers beside the file names or texts; "
    "`emit predict` does not"
)
FEW_GROUPS = 10
"""With fewer people or other groups, the test split has too few to tell about new ones."""
EXAMPLES = 3
"""Examples shown per kind; the JSON report has all."""
DUPLICATES = {
    "files": "files with equal content",
    "sounds": "sound files with equal content",
    "transcripts": "nearly equal words",
}


def format_report(report: dict[str, Any]) -> str:
    """The text to print. report: from `check_source`."""
    lines = [f"{report['source']}: {counted(report['clips'], 'clip')}, read with layout {report['layout']!r}"]
    splits = {name or "no split": count for name, count in report["splits"].items()}
    lines.append("  splits       " + ", ".join(f"{name} {count}" for name, count in splits.items()))
    lines += [f"  note         {_indented(note)}" for note in report["notes"]]
    lines += _files(report) + _headers(report["headers"]) + _transcripts(report) + _labels(report["labels"])
    for split, reasons in report["useless_labels"].items():
        what = "teach nothing" if split == "train" else "allow no PCC"
        listed = [f"{name} ({reason})" for name, reason in reasons.items()]
        lines.append(f"  labels       of {split} that {what}: {first_few(listed, separator='; ')}")
    for split, counts in report["zero_rows"].items():
        if counts["zero"]:
            share = counts["zero"] / counts["rows"]
            lines.append(f"  zero rows    {counts['zero']} of {counts['rows']} in {split or 'all'} ({share:.0%})")
    for name, group in report["groups"].items():
        each = group["clips_each"]
        sizes = f", {_sizes(each)}" if each else ""
        without = f"; {counted(group['clips_without'], 'clip')} without" if group["clips_without"] else ""
        lines.append(f"  group        {name}: {counted(group['values'], 'value')}{sizes}{without}")
        if 0 < group["values"] < FEW_GROUPS:
            lines.append(f"  {'':<13}fewer than {FEW_GROUPS}: scores say little about a {name} not seen in training")
    for what, sets in report["duplicates"].items():
        if sets:
            examples = "; ".join(" = ".join(ids[:EXAMPLES]) for ids in sets[:EXAMPLES])
            clips = sum(map(len, sets))
            lines.append(
                f"  duplicates   {clips} clips in {counted(len(sets), 'set')} with {DUPLICATES[what]}: {examples}"
            )
    for what, leak in report["leakage"].items():
        lines.append(
            f"  LEAKAGE      {what}: {leak['clips']} clips in "
            f"{counted(leak['sets'], 'set', 'is', 'are')} in more than one split: " + "; ".join(leak["examples"])
        )
    if not report["leakage"] and len([name for name in report["splits"] if name]) > 1:
        lines.append("  leakage      none found between the splits")
    if report["problems"]:
        first = [f"{name} {problems[0]}" for name, problems in list(report["problems"].items())[:EXAMPLES]]
        lines.append(f"  problems     with {counted(len(report['problems']), 'clip')}: {'; '.join(first)}")
    return "\n".join(lines)


def _sizes(each: dict[str, float]) -> str:
    """The sizes of the groups in clips."""
    least, most = each["least"], each["most"]
    clips = "clip" if most == 1 else "clips"
    return f"{most:.0f} {clips} each" if least == most else f"{least:.0f} to {most:.0f} {clips} each"


def _indented(note: str) -> str:
    return note.replace("\n", "\n" + " " * 13)


def _files(report: dict[str, Any]) -> list[str]:
    files = report["files"]
    if files["words_alone"] == report["clips"]:
        return ["  files        none: only texts"]
    kinds = ", ".join(f"{count} {kind or 'without a suffix'}" for kind, count in files["kinds"].items())
    lines = [f"  files        {files['there']} of {report['clips']} there ({kinds})"]
    for what in ("missing", "empty"):
        if files[what]:
            lines.append(
                f"  {what:<13}{counted(len(files[what]), 'file')}: {', '.join(files[what][:EXAMPLES])}"
                + _more(files[what])
            )
    for what, words in (("sound_of_its_own", "sound"), ("crops_of_its_own", "face crops")):
        if files[what]:
            lines.append(f"  {'':<13}{counted(files[what], 'clip')} with {words} in separate files")
    return lines


def _headers(headers: dict[str, Any]) -> list[str]:
    if not headers["of"]:
        return []
    some = f"{headers['looked_at']} of {headers['of']} files" if headers["looked_at"] < headers["of"] else "all files"
    lines = []
    if headers["seconds"]:
        s = headers["seconds"]
        lines.append(
            f"  seconds      {s['least']:.2f} to {s['most']:.2f}, median {s['median']:.2f}, 95 % below {s['p95']:.2f}; "
            f"about {headers['hours']:.1f} h in all (headers of {some})"
        )
    if headers["frame_rate"]:
        r, odd = headers["frame_rate"], headers["implausible_rates"]
        doubt = f"; {odd} claim an impossible rate, frames are selected by their timestamps" if odd else ""
        lines.append(f"  frames/s     {r['least']:.4g} to {r['most']:.4g}, median {r['median']:.4g}{doubt}")
    if headers["sample_rates"]:
        rates = ", ".join(f"{n} at {int(rate)}" for rate, n in headers["sample_rates"].items())
        lines.append(f"  sound, Hz    {rates}")
    for what, words in (("no_picture", "no video"), ("no_sound", "no audio")):
        if headers[what]:
            lines.append(f"  {words:<13}{headers[what]} of {headers['looked_at']}")
    tracks = [f"{path.rsplit('/', 1)[-1]}: {'; '.join(notes)}" for path, notes in headers["several_tracks"].items()]
    if tracks:
        lines.append(f"  tracks       {len(tracks)} with several: {'; '.join(tracks[:EXAMPLES])}" + _more(tracks))
    bad = [f"{path.rsplit('/', 1)[-1]}: {reason}" for path, reason in headers["unreadable"].items()]
    if bad:
        lines.append(f"  unreadable   {len(bad)}: {'; '.join(bad[:EXAMPLES])}" + _more(bad))
    return lines


def _transcripts(report: dict[str, Any]) -> list[str]:
    transcripts = report["transcripts"]
    if not transcripts["there"]:
        return ["  words        none"]
    words = transcripts["words"]
    count = f"{transcripts['there']} of {counted(report['clips'], 'clip')}"
    spread = f"{words['least']:.0f} to {words['most']:.0f} words, median {words['median']:.0f}"
    return [f"  words        {count}; {spread}", *(f"  {'':<13}{note}" for note in transcripts["notes"])]


def _labels(labels: dict[str, Any]) -> list[str]:
    lines = [] if labels else [f"  labels       {NO_LABELS}"]
    for name, label in labels.items():
        if "histogram" not in label:
            lines.append(f"  {name:<18}not labeled")
            continue
        low, high = label["bins"]
        missing = f"; {counted(label['missing'], 'clip')} without" if label["missing"] else ""
        constant = "; CONSTANT, nothing can be learned" if label["constant"] else ""
        histogram = f"{low:>6.3g} |{bars(label['histogram'])}| {high:<6.3g}"
        lowest = label["range_given"][0]
        lines.append(
            f"  {name[:17]:<18}{histogram} above {lowest:g}: {label['above_zero']:>4.0%}, mean {label['mean']:.3f}, "
            f"max {label['range'][1]:.3g}{missing}{constant}"
        )
    return lines


def bars(counts: list[int]) -> str:
    """One character per bin: a blank for 0, otherwise a bar of proportional height."""
    maximum = max([1, *counts])
    return "".join(BARS[0] if n == 0 else BARS[max(1, round(n / maximum * 8))] for n in counts)


def _more(items: list) -> str:
    return f" and {len(items) - EXAMPLES} more" if len(items) > EXAMPLES else ""
