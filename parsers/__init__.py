"""Anything on disk that a training run left behind, read into one `Run`: one file per format."""

IS_AFTERTRAIN = True
