"""Option tables of the clones: what a command line says, in the order and with the complaints of each original."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from zoned_tools.cli.clones.dmzadm import arguments as dmzadm
from zoned_tools.cli.clones.mkzonefs import arguments as mkzonefs
from zoned_tools.cli.clones.options import Given, Option, OptionTable, Order
from zoned_tools.cli.clones.zdmadm import arguments as zdmadm
from zoned_tools.errors import UsageError

if TYPE_CHECKING:
    from tests.programs import Program

OPTIONS = (
    Option(("--label", "-l"), "TEXT", "A name", ("make",)),
    Option(("--mode",), "on|off", "A choice", ("make", "mend")),
    Option(("--force", "-f"), "", "A flag"),
)
DMZADM_HELP = """\
Usage: dmzadm <operation> <device(s)> [options]
Operations:
  --help | -h    : General help message
  --version | -v : Print version number and exit
  --format       : Format the device metadata
  --check        : Check the device metadata, exit status 1 when errors are found
  --repair       : Repair the device metadata
  --relabel      : Change the device label
  --start        : Start the device mapper target
  --stop         : Stop the device mapper target
Devices are block devices or image files: one zoned device, or a regular one
followed by zoned ones.
General options:
  --verbose      : Verbose output
  --vverbose     : Very verbose output, every zone is printed
  --json         : Print one JSON document
  --dry-run      : Print what would be written, and change nothing
  --undo=FILE    : Save what is overwritten to FILE, for zoned undo
  --no-undo      : Save nothing of what is overwritten
Format options:
  --force        : Overwrite existing content
  --label=STR    : Label of the target (also for --relabel)
  --seq=NUM      : Number of sequential zones reserved for reclaim (default 16)
  --uuid=UUID    : UUID of the target instead of a random one
  --device-uuid=UUID
                 : UUID of a device, repeated in device order
  --metadata-version=1|2
                 : Version of the metadata (default 2)
Repair options:
  --use-set=0|1  : Trust this metadata set
  --allow=CODE   : Agree to a repair that loses or guesses data; repeatable
  --set=KEY=VALUE
                 : A choice of repair (overlap=buffer, reclaim=clear); repeatable
Start options:
  --no-sync      : Refuse to start metadata sets of different generations
"""
MKZONEFS_HELP = """\
Usage: mkzonefs [options] <device path>
Options:
  --version     : Print version number and exit
  --help | -h   : General help message
  -v            : Verbose output
  -f            : Force overwrite of existing content
  -o <features>\t: Optional features
See "man mkzonefs" for more information
"""


def read(order: Order, *words: str) -> list[Given]:
    return list(OptionTable("program", "It works.", OPTIONS, order).read(words))


def refusal(order: Order, *words: str) -> str:
    with pytest.raises(UsageError) as refused:
        read(order, *words)
    return str(refused.value)


def test_every_order_reads_options_before_devices() -> None:
    expected = [Given("label", "x", "-l"), Given("force", "", "-f"), Given("", "a")]
    for order in (Order.FIRST, Order.MIXED):
        assert read(order, "-l", "x", "-f", "a") == expected
    assert read(Order.WHOLE, "--label", "x", "-f", "a") == [Given("label", "x", "--label"), *expected[1:]]


def test_options_first_ends_at_the_first_device() -> None:
    assert read(Order.FIRST, "a", "-f") == [Given("", "a"), Given("", "-f")]
    assert refusal(Order.FIRST, "--label=x", "a") == "option --label=x not recognized"
    assert refusal(Order.FIRST, "-l", "x") == "option -l requires argument"


def test_mixed_reads_as_getopt_long() -> None:
    assert read(Order.MIXED, "a", "-fl", "x") == [Given("force", "", "-f"), Given("label", "x", "-l"), Given("", "a")]
    assert read(Order.MIXED, "--lab=x") == [Given("label", "x", "--label")]
    assert "see program --help" in refusal(Order.MIXED, "--nonsense")


def test_whole_words_mix_and_are_spelt_out() -> None:
    words = ("a", "--label=x=y", "--mode", "--force", "b", "-ff", "--", "--force", "-")
    assert [(given.key, given.value) for given in read(Order.WHOLE, *words)] == [
        *(("", "a"), ("label", "x=y"), ("mode", "--force"), ("", "b"), ("force", ""), ("force", "")),
        *(("", "--force"), ("", "-")),
    ]
    assert read(Order.WHOLE, "--label=") == [Given("label", "", "--label")]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--lab", "x"), "No such option: --lab (Possible options: --label)"),
        (("--qqq=1",), "No such option: --qqq"),
        (("-fx",), "No such option: -x"),
        (("--mode",), "Option '--mode' requires an argument."),
        (("--force=yes",), "Option '--force' does not take a value."),
        (("--\x1b[0m",), "No such option: --\\x1b[0m"),
    ],
)
def test_complaints_about_whole_words(words: tuple[str, ...], complaint: str) -> None:
    assert refusal(Order.WHOLE, *words) == f"{complaint} (see program --help)"


def test_options_belong_to_operations() -> None:
    table = OptionTable("program", "It works.", OPTIONS, Order.WHOLE)
    given = ("force", "mode", "label")
    assert [option.key for option in table.foreign("make", given)] == []
    assert [option.key for option in table.foreign("mend", given)] == ["label"]
    assert [option.key for option in table.foreign("other", given)] == ["label", "mode"]


def test_every_foreign_option_of_dmzadm_is_refused(program: Program) -> None:
    for option in (*dmzadm.FORMAT, *dmzadm.REPAIR):
        name = option.names[0]
        word = f"{name}=1" if option.value else name
        for operation in dmzadm.OPERATIONS:
            result = program("dmzadm", *operation.names, "nothing.img", word)
            assert result.status == 1
            refused = "option is valid only with" in result.err or "option is not valid with" in result.err
            assert refused == (operation.key not in option.operations), (name, operation.key, result.err)


def test_the_original_own_refusals_come_first(program: Program) -> None:
    result = program("dmzadm", "--check", "x", "--force", "--label=a", "--seq=3")
    assert result.err == "dmzadm: --seq option is valid only with the format operation\n"
    assert program("dmzadm", "--stop", "x", "--allow=1").err == "dmzadm: --allow option is not valid with --stop\n"


def test_help_texts(program: Program) -> None:
    assert program("dmzadm", "--help").out == program("dmzadm").out == DMZADM_HELP
    assert program("dmzadm", "--check", "x", "--help").out == DMZADM_HELP
    assert program("mkzonefs", "-h").out == MKZONEFS_HELP
    lines = program("zdmadm", "--help").out.splitlines()
    assert lines[:4] == [
        "zdmadm 0.125",
        "Usage: zdmadm [options] DEVICE...",
        "Options:",
        "  -c, --create                    Write identity and empty tables, and start the mapping",
    ]
    assert "  -s, --set, --adjust             Change run-time parameters" in lines
    assert "      --gc on|off|force           Garbage collection" in lines
    assert lines[-1] == "  -h, --help                      This text"


def test_command_trees_are_the_tables() -> None:
    for module in (dmzadm, zdmadm, mkzonefs):
        tree = module.command_tree()
        assert tree.help.endswith(".")
        shown = [tuple(parameter.opts) for parameter in tree.params]
        assert shown == [o.names for o in module.TABLE.options if o.key not in ("help", "version")]
    choices = {p.opts[0]: p.type.choices for p in dmzadm.command_tree().params}
    assert choices["--metadata-version"] == ("1", "2")
