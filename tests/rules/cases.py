"""All cases: importing them makes them known, in this order."""

import read_cases  # pylint: disable=unused-import
import write_cases  # pylint: disable=unused-import
import token_cases  # pylint: disable=unused-import
import suite_cases  # pylint: disable=unused-import
import derived_cases  # pylint: disable=unused-import
