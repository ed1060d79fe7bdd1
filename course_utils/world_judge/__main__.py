"""``python -m course_utils.world_judge``"""

from __future__ import annotations

import argparse
import sys

from course_utils.errors import CourseError

from . import command

if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m course_utils.world_judge", description=command.HELP)
    command.add_arguments(parser)
    try:
        sys.exit(command.main(parser.parse_args()))
    except CourseError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
