#!/usr/bin/env bash
# Benchmarks of the hot paths, then a step of tuning and one of denoising beside PyTorch; writes docs/benchmarks.md.
# A step of tuning and captions beside PyTorch, then benchmarks of the hot paths; writes docs/benchmarks.md.
