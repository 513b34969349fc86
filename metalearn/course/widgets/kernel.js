// Shared by the widgets that need a kernel: how they notice that it is gone, and what they then say.

const STOPPED = "The kernel was restarted or has stopped: run this cell again.";

// Calls `wake(isGone)` whenever the kernel comes or goes; gives a function that tells it at any time. The model does not
// know whether its kernel is there; the view in whose name it calls back does.
function watchKernel(model, wake) {
  let view;
  model.on("change:probe", function () {
    view = this;
  });
  model.set("probe", true);
  const isGone = () => view?.model?.comm_live === false;
  model.on("comm_live_update", () => wake(isGone()));
  return isGone;
}

