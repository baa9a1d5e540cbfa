"""A program in the style of "Deep Learning from Scratch 2": a model, an optimizer over lists, the book's Trainer."""
# ruff: noqa: NPY002

import dlfs2
import gallery
import numpy as np


def main(accelerate=False, quick=False):
    """Train the two-layer network of "Deep Learning from Scratch 2" on digits."""
    np.random.seed(0)
    (x, t), (x_test, t_test) = gallery.digits()
    t = gallery.one_hot(t)
    model = dlfs2.TwoLayerNet(input_size=64, hidden_size=100, output_size=10)
    if accelerate:
        import fastbp

        fastbp.accelerate(model)
    optimizer = dlfs2.Adam(lr=0.01)
    trainer = dlfs2.Trainer(model, optimizer)

    losses = []
    for epoch in range(3 if quick else 10):
        trainer.fit(x, t, max_epoch=1, batch_size=30)
        losses.append(float(model.forward(x, t)))
        print(f"epoch {epoch}: loss {losses[-1]:.6f}")
    accuracy = np.mean(model.predict(x_test).argmax(axis=1) == t_test)
    print(f"test accuracy: {100 * accuracy:.1f} %")
    return losses


if __name__ == "__main__":
    gallery.run(main)
