//! EfficientNet-Lite0 under the names of the published weights (`_blocks.N._depthwise_conv.weight`).
//!
//! Lite means: ReLU6 for swish, no squeeze-and-excitation, a fixed stem and head. Strided convolutions pad as
//! TensorFlow's SAME; symmetric padding would run too, and give wrong results without an error.

use tch::{TchError, Tensor};

use super::layers::{Builder, ConvNorm, ConvShape, Mode, Padding};

const EPS: f64 = 1e-3;

/// (expansion, output channels, repeats, stride of the first, kernel) of each stage.
const STAGES: [(i64, i64, usize, i64, i64); 7] = [
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
];

/// The network up to and including its last 1x1 convolution, 1280 channels.
#[derive(Debug)]
pub(super) struct EfficientNetLite0 {
    stem: ConvNorm,
    blocks: Vec<Block>,
    head: ConvNorm,
}

fn forward_relu6(layer: &ConvNorm, input: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
    layer.forward(input, mode)?.f_relu6_()
}

fn pointwise(inputs: i64, outputs: i64) -> ConvShape {
    ConvShape { inputs, outputs, kernel: 1, stride: 1, groups: 1, padding: Padding::Same }
}

/// An inverted residual: expand, depthwise, project.
#[derive(Debug)]
struct Block {
    expand: Option<ConvNorm>,
    depthwise: ConvNorm,
    project: ConvNorm,
    shortcut: bool,
}

/// The numbers of one inverted residual.
#[derive(Debug, Clone, Copy)]
struct BlockShape {
    inputs: i64,
    outputs: i64,
    expansion: i64,
    stride: i64,
    kernel: i64,
}

impl Block {
    fn new(builder: &mut Builder, index: usize, shape: BlockShape) -> Result<Self, TchError> {
        let BlockShape { inputs, outputs, expansion, stride, kernel } = shape;
        let name = |part: &str| format!("_blocks.{index}.{part}");
        let width = inputs * expansion;
        let expand = if expansion == 1 {
            None
        } else {
            Some(builder.conv_norm(&name("_expand_conv"), &name("_bn0"), pointwise(inputs, width), EPS)?)
        };
        let depthwise =
            ConvShape { inputs: width, outputs: width, kernel, stride, groups: width, padding: Padding::Same };
        Ok(Self {
            expand,
            depthwise: builder.conv_norm(&name("_depthwise_conv"), &name("_bn1"), depthwise, EPS)?,
            project: builder.conv_norm(&name("_project_conv"), &name("_bn2"), pointwise(width, outputs), EPS)?,
            shortcut: stride == 1 && inputs == outputs,
        })
    }

    fn forward(&self, input: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let expanded = match &self.expand {
            Some(expand) => forward_relu6(expand, input, mode)?,
            None => input.shallow_clone(),
        };
        let filtered = forward_relu6(&self.depthwise, &expanded, mode)?;
        let mut output = self.project.forward(&filtered, mode)?;
        if self.shortcut { output.f_add_(input) } else { Ok(output) }
    }
}

impl EfficientNetLite0 {
    pub(super) fn new(builder: &mut Builder) -> Result<Self, TchError> {
        let stem = ConvShape { inputs: 3, outputs: 32, kernel: 3, stride: 2, groups: 1, padding: Padding::Same };
        let stem = builder.conv_norm("_conv_stem", "_bn0", stem, EPS)?;
        let mut blocks = Vec::new();
        let mut inputs = 32;
        for (expansion, outputs, repeats, first_stride, kernel) in STAGES {
            for repeat in 0..repeats {
                let stride = if repeat == 0 { first_stride } else { 1 };
                let shape = BlockShape { inputs, outputs, expansion, stride, kernel };
                blocks.push(Block::new(builder, blocks.len(), shape)?);
                inputs = outputs;
            }
        }
        let head = builder.conv_norm("_conv_head", "_bn1", pointwise(inputs, 1280), EPS)?;
        Ok(Self { stem, blocks, head })
    }

    pub(super) fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tensor, TchError> {
        let mut features = forward_relu6(&self.stem, images, mode)?;
        for block in &self.blocks {
            features = block.forward(&features, mode)?;
        }
        forward_relu6(&self.head, &features, mode)
    }
}
