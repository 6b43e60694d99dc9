"""Rules of the study's verdicts, written before its networks were trained, but for the loss that C4 is asked at."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "ADJUSTED_R2",
    "BIAS",
    "CARRIED",
    "CHANCE",
    "EARLY",
    "EARLY_SHARE",
    "FROZEN",
    "HELD_BACK",
    "OUTCOME",
    "PRIMARY",
    "REACHED",
    "RULES",
    "SETS",
    "THRESHOLD",
]

#: Data sets that a claim has to hold on.
SETS = 2
#: The published figure of C1.
ADJUSTED_R2 = 0.89
#: Training accuracy of networks that have learned something: twice that of guessing among ten classes.
CHANCE = 0.2
#: C2: the part of the training that counts as early, and the part of the final R² that is little.
EARLY, EARLY_SHARE = 0.2, 0.5
#: C3: the R² that a model must keep, and the largest bias, in points.
CARRIED, BIAS = 0.5, 2.0
#: The data set on which nothing is developed: not shown before C3's features are frozen.
HELD_BACK = "fashion_mnist"
#: These features, once they are chosen on the other sets: keys of
#: :data:`~benchmarks.studies.population.features.FEATURES`, and what they are. From then on the page shows what they do
#: there.
FROZEN: Mapping[str, str] = {"robustness gaps": "how much worse training examples do once they are mixed or moved"}
#: C4: measure, outcome, and the rank correlation that counts. Networks are compared at the lowest training loss that so
#: large a part of a set's networks reach.
PRIMARY = "riemannian_trace"
REACHED = 0.5
OUTCOME = "test_error"
THRESHOLD = 0.2

RULES = f"""\
Intervals are 95 %: 1.96 standard deviations either way over bootstrap samples of base configurations, each with all
networks made from it: 200 samples, of rank correlations 2,000. "Margins" means, unless something else is said, the
quartiles, mean, standard deviation, skewness and kurtosis of the logarithms of positive margins to first order at the
input and at three hidden layers, measured on 1,000 training examples and divided by the root of the layer's total
variation. The gap is training minus test accuracy, both at the same time. In k-fold R², of ten folds, whole base
configurations are left out, and features are standardised without them. Networks with wrong labels, those that diverged
and those whose margins do not exist, as where outputs are constant, are left out and counted. Every R² stands beside
those of the baselines: loss and accuracy on the training data, hyper-parameters, norms of the weights, and the sum of
the losses of all batches. Beside the numbers that decide, and without a verdict, stand the same over networks at times
when their training accuracy is at least {CHANCE:.0%}, since a few that have learned nothing can decide an R².

- **C1** (a linear model on margin statistics predicts the gap with adjusted R² = {ADJUSTED_R2}): at the end of
  training, over all networks of a set. *Holds* if the interval of the adjusted R² reaches {ADJUSTED_R2} or lies above
  it on CIFAR-10 and on MNIST-1D; *does not hold* if it lies below on either. Whether margins add to loss and accuracy
  is a question of its own: yes, if the interval of the partial R² in k-fold prediction (the part of the baseline's
  squared error that margins take away) lies above 0 on both sets.
- **C2** (margins correlate with the gap only late in training): networks of full length, k-fold R² by fraction of the
  training. *Holds* if on both sets the interval of R² at {EARLY} as a part of R² at the end lies below a half; *does
  not hold* if on either set it lies above; else *undecided*, as where R² at the end is not above 0.
- **C3** (the model does not carry over to shorter training): the model of the networks of full length at their end,
  applied to networks trained a quarter as long at theirs, each base configuration predicted without its fold.
  *Holds* if on each of both sets the interval of R² lies below {CARRIED} or that of the bias above {BIAS:.0f} or below
  -{BIAS:.0f} points; *does not hold* if on both sets the interval of R² lies above {CARRIED} and that of the bias
  between -{BIAS:.0f} and {BIAS:.0f} points; else *undecided*. It counts as *overcome* if a set of features, chosen on
  CIFAR-10 and MNIST-1D and then frozen, has on the short networks of Fashion-MNIST, read once with coefficients of its
  full-length networks, an R² of at least {CARRIED}, a bias under {BIAS:.0f} points either way, and a larger R² than
  loss and accuracy alone on the same networks; these are estimates, not intervals.
- **C4** (curvature correlates with generalisation): the primary measure is the trace of the Riemannian Hessian of the
  filters, each rescaled to unit length without a change of the function; the outcome is the test error, both when the
  training loss first falls below the matched loss of the set: the lowest of 1, 0.3, 0.1, 0.03 and 0.01 that at least
  half of its networks reach, of both lengths and those that diverged, which reach none, among them; 1, if there is no
  such loss. It is looked up twice an epoch and at each tenth, on the 1,000 examples of the margins in evaluation mode.
  Kendall's coefficient within each axis (pairs of a base configuration and its variant that both reach that loss, one
  mean for each axis, axes with fewer than ten pairs left out), averaged over axes. *Holds* if the interval of the
  average lies above {THRESHOLD} on CIFAR-10 and on MNIST-1D and no axis has an interval below -{THRESHOLD}; *does not
  hold* if the interval of the average lies below {THRESHOLD} on either; else *undecided*. All other measures, outcomes
  and losses are reported with Holm's correction over all of these on a set, and networks that never reach a loss are
  counted by axis. The matched loss was 0.3 on both sets until 33 networks on CIFAR-10 were trained, of which five
  reached that; only who reaches which loss was counted to change it.
"""
